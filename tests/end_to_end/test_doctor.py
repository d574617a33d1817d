"""`shm doctor`: each fault is found and has a remedy, a sound set-up has none, and the start logs the warnings."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from shm.core.settings import Settings
from shm.db.backup import find_backup_problem, read_database
from shm.db.client_programs import find_program
from shm.db.database import Database
from shm.db.embedded.programs import packaged_programs
from shm.db.schema_checks import DatabaseState
from shm.server.checks.address import check_own_address, check_public_address
from shm.server.checks.certificate import check_certificate
from shm.server.checks.finding import Finding, Level
from shm.server.checks.machine import check_machine
from tests.support.clusters import embedded_cluster
from tests.support.databases import execute, superuser_cursor
from tests.support.server_process import ServerProcess, free_port
from tests.support.shm_command import run_shm

CONNECTIONS = {"SHM_MAX_CONNECTIONS": "100"}


def run(*arguments: str, status: int = 0, **environment: str) -> dict[str, str]:
    """The findings of `shm doctor`: the last one of each subject, with its remedy below it."""
    done = run_shm("doctor", *arguments, **(CONNECTIONS | environment))
    assert done.returncode == status, done.stdout + done.stderr
    findings: dict[str, str] = {}
    subject = ""
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            findings[subject] += f"\n{line.strip()}"
        else:
            level, _, rest = line.partition(" ")
            subject, _, text = rest.strip().partition(": ")
            findings[subject] = f"{level}: {text}"
    return findings


def level(findings: dict[str, str], subject: str) -> str:
    """The level of a finding."""
    return findings[subject].partition(":")[0]


def test_a_sound_server_has_no_fault(postgres_dir: Path) -> None:
    with embedded_cluster(postgres_dir) as cluster:
        (server,) = cluster.servers
        found = run("--port", str(server.port), "--data-dir", str(server.data_dir))
    assert level(found, "server") == "ok"
    assert "is ready" in found["server"]
    assert {text.partition(":")[0] for text in found.values()} == {"ok", "note"}
    assert found["database"].startswith("ok: PostgreSQL 18.")
    assert f"embedded in {server.data_dir}" in found["database"]
    assert found["backup"] == "ok: `shm backup` has pg_dump of PostgreSQL 18."


def test_faults_of_the_database_are_found(database: str, tmp_path: Path) -> None:
    """fsync is off in the PostgreSQL of the tests."""
    execute(database, "UPDATE background_rounds SET finished_at = now() - interval '1 hour'")
    execute(database, "INSERT INTO database_sizes VALUES (now() - interval '2 hours', 1)")
    environment = {"SHM_DB_DSN": database, "SHM_MAX_DISK": "20m", "SHM_DATA_DIR": str(tmp_path)}
    with superuser_cursor(database) as cursor:
        cursor.execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()")
    found = run("--workers", "20", "--port", str(free_port()), status=1, **environment)
    assert level(found, "durability") == "error"
    assert "Run `ALTER SYSTEM SET fsync = on`" in found["durability"]
    assert level(found, "connections") == "error"
    assert level(found, "collation") == "warning"
    assert level(found, "size") == "warning"
    assert level(found, "background") == "note"
    assert "no server answers" in found["server"]


def test_what_is_no_database_is_an_error(postgres_dir: Path) -> None:
    found = run("--dsn", "host=127.0.0.1 port=1", status=1, SHM_START_PATIENCE="1s")
    assert "No server listens" in found["database"]
    assert level(run("--data-dir", str(postgres_dir / "none")), "database") == "note"
    assert not (postgres_dir / "none").exists()


def test_faults_of_the_machine_are_found(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("x")
    (tmp_path / "admin.token").chmod(0o644)
    environment = {"SHM_DATA_DIR": str(tmp_path), "SHM_TRUSTED_PROXIES": "10.0.0.0/8,::/0", "SHM_HOST": "::"}
    found = {each.subject: each for each in check_machine(Settings.load(environment))}
    assert found["token"].level is Level.ERROR
    assert f"chmod 600 {tmp_path}/admin.token" in found["token"].remedy
    assert found["proxies"].level is Level.ERROR
    assert "::/0" in found["proxies"].text
    assert found["address"].level is Level.NOTE
    assert found["disk"].level is Level.OK
    assert all(bool(each.remedy) == (each.level > Level.OK) for each in found.values())


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-1, Level.ERROR), (5, Level.WARNING), (90, Level.OK)],
)
def test_a_certificate_that_expires_is_found(tmp_path: Path, days: int, expected: Level) -> None:
    """It needs no server, because an expired one is served like any other."""
    certificate, key = write_certificate(tmp_path, days)
    (found,) = check_certificate(Settings.load({"SHM_TLS_CERT": str(certificate), "SHM_TLS_KEY": str(key)}))
    assert (found.level, found.subject) == (expected, "tls")
    assert bool(found.remedy) == (expected > Level.OK)


def test_a_certificate_whose_end_cannot_be_read_is_served(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, 90)
    subprocess.run(["openssl", "x509", "-in", certificate, "-trustout", "-out", certificate], check=True)
    (found,) = check_certificate(Settings.load({"SHM_TLS_CERT": str(certificate), "SHM_TLS_KEY": str(key)}))
    assert (found.level, found.subject) == (Level.NOTE, "tls")
    assert "openssl x509 -enddate" in found.remedy


def test_a_certificate_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, 90)
    (tmp_path / "other").mkdir()
    _, other_key = write_certificate(tmp_path / "other", 90)
    for files in ((certificate, tmp_path / "none"), (tmp_path / "none", key), (certificate, other_key)):
        environment = dict(zip(("SHM_TLS_CERT", "SHM_TLS_KEY"), map(str, files), strict=True))
        found = run("--data-dir", str(tmp_path / "none"), "--port", str(free_port()), status=1, **environment)
        assert level(found, "tls") == "error"
        assert "let the user that runs the server read both files" in found["tls"]


def test_a_missing_pg_dump_is_found(database: str) -> None:
    """And one without TLS, where the connection has it. `shm backup` refuses both with the same remedy."""
    state = asyncio.run(read_state(database))
    assert find_backup_problem(state) == ""
    assert "`apt install postgresql-client-99`" in find_backup_problem(replace(state, version="99.1"))
    if find_program("pg_dump", "18").parent == packaged_programs("18"):
        assert "`apt install postgresql-client-18`" in find_backup_problem(replace(state, sslmode="require"))


async def read_state(dsn: str) -> DatabaseState:
    """The state of a database, as `shm backup` reads it."""
    async with Database.connect(Settings.load({"SHM_DB_DSN": dsn}), dsn, size=1) as database:
        return await read_database(database)


def write_certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """The files of a certificate for `localhost` and of its key. The certificate is valid for so many days."""
    issued = trustme.CA().issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=days))
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def test_too_few_files_are_found(tmp_path: Path) -> None:
    limits = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300));"
    script = f"{limits} sys.argv = ['shm', 'doctor']; runpy.run_module('shm.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "SHM_DATA_DIR": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "warning  files: the process may open 300 files, so it accepts 172 connections" in done.stdout
    assert "LimitNOFILE" in done.stdout


def test_the_start_logs_warnings_and_the_version(serve: Callable[..., ServerProcess]) -> None:
    log = serve(SHM_MAX_DISK="20m").log
    assert "INFO    PostgreSQL 18." in log
    assert "of SHM_DB_DSN" in log
    assert "WARNING durability: fsync or full_page_writes of PostgreSQL is off" in log
    assert "proxies" not in log


async def test_a_program_without_http_is_no_server() -> None:
    """As a PostgreSQL on the port: it accepts the connection and closes it."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as other:
        found = await check_own_address("127.0.0.1", other.sockets[0].getsockname()[1])
    assert (found.level, "does not answer as SHM does" in found.text) == (Level.ERROR, True)
    assert "PORT" in found.remedy


async def examine(url: str, token: str | None = None) -> list[Finding]:
    """The findings of an address."""
    return [finding async for finding in check_public_address(url, token)]


async def test_an_address_that_passes_everything_has_no_error(shared_server: ServerProcess) -> None:
    findings = await examine(shared_server.url)
    assert [each.subject for each in findings if each.level > Level.OK] == ["tls"]
    assert {each.text for each in findings} >= {
        "/v1/ reaches the server",
        "/api/ reaches the server",
        "/badge/ reaches the server",
        "/metrics is not public",
    }


async def test_an_address_of_another_program_has_errors(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stderr=subprocess.DEVNULL,
    ) as other:
        try:
            found = {}
            while "proxy" not in found:
                found = {each.subject: each for each in await examine(f"http://127.0.0.1:{port}")}
            texts = [each.text for each in await examine(f"http://127.0.0.1:{port}") if each.level is Level.ERROR]
            assert texts == [f"{path} does not reach the server" for path in ("/api/", "/v1/", "/badge/")]
        finally:
            other.terminate()
    assert [each.level for each in await examine("metrics.example.com")] == [Level.ERROR]
    (*_, unreachable) = await examine(f"http://127.0.0.1:{port}")
    assert "Connection refused" in unreachable.text
