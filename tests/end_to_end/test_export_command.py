"""`shm export`: reads the database and writes to standard output, or atomically to a file."""

import csv
import os
import pty
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.bulk_fleet import insert_fleet
from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM, run_shm

TIMEOUT_S = 60


def start_export(*arguments: str, database: str) -> "subprocess.Popen[bytes]":
    """`shm export` with exactly these arguments."""
    return subprocess.Popen(
        [*SHM, "export", *arguments],
        env=os.environ | {"SHM_DB_DSN": database},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(*arguments: str, database: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of `shm export`."""
    done = run_shm("export", *arguments, SHM_DB_DSN=database)
    return done.returncode, done.stdout, done.stderr


def test_it_writes_the_same_as_the_server(server: ServerProcess, database: str) -> None:
    Install(server.url).enroll({"n": 1.5})
    Install(server.url, app_name="Kiosk").enroll({"m": 2})
    assert run(database=database)[:2] == (0, server.get("export").content.decode())
    arguments = ("--app", "Ledger", "--status", "active", "--format", "jsonl")
    lines = server.get("export?app=Ledger&status=active&format=jsonl").text
    assert run(*arguments, database=database)[:2] == (0, lines)
    assert lines.count("\n") == 1


@pytest.mark.parametrize("output_format", long_after(1, ["csv", "jsonl"]))
def test_a_terminal_gets_no_escape_sequence(server: ServerProcess, database: str, output_format: str) -> None:
    """Neither C0 nor C1 controls, nor marks that change the direction of the text. A pipe gets the exact text."""
    hostile = "a\x1b]52;c;eA==\x07\x9b31m\x7f\r\u202eb"
    Install(server.url, app_version=hostile, environment="\x9d0;x\x9c").enroll({"plan": hostile})
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*SHM, "export", "--format", output_format],
        env=os.environ | {"SHM_DB_DSN": database},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    output = bytearray()
    with suppress(OSError):  # the end of a terminal
        while chunk := os.read(master, 4096):
            output += chunk
    os.close(master)
    _, error_output = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, error_output
    text = output.decode().replace("\r\n", "\n")
    assert "plan" in text
    assert all(character == "\n" or character.isprintable() for character in text)
    assert "\x9b31m" in run("--format", output_format, database=database)[1]


def test_a_csv_file_for_excel_begins_with_a_mark(server: ServerProcess, database: str) -> None:
    Install(server.url).enroll({"n": 1})
    text = run(database=database)[1]
    assert run("--bom", database=database)[1] == "\ufeff" + text
    assert run("--bom", "--format", "jsonl", database=database)[1].startswith("{")


def test_a_file_is_its_owners_alone_and_replaces_an_older_one(database: str, tmp_path: Path) -> None:
    insert_fleet(database, 10)
    file, link = tmp_path / "fleet.csv", tmp_path / "link.csv"
    file.write_text("older")
    file.chmod(0o644)
    link.symlink_to(file)
    assert run("--output", str(link), database=database)[:2] == (0, "")
    assert len(list(csv.DictReader(file.read_text().splitlines()))) == 10
    assert file.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_export_leaves_the_file_unchanged(database: str, tmp_path: Path) -> None:
    insert_fleet(database, 2_000, texts=50)
    file = tmp_path / "fleet.jsonl"
    file.write_text("older")
    process = start_export("--format", "jsonl", "--output", str(file), database=database)
    wait_for(lambda: any(each.stat().st_size > 2**20 for each in tmp_path.iterdir()), "some of the export")
    process.send_signal(signal.SIGTERM)
    _, error_output = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, error_output) == (128 + signal.SIGTERM, b"")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["older"]


def test_an_unwritable_file_is_reported_in_a_sentence(database: str, tmp_path: Path) -> None:
    for path in (str(tmp_path / "nowhere" / "fleet.csv"), str(tmp_path), os.devnull):
        status, output, error_output = run("--output", path, database=database)
        assert (status, output) == (1, "")
        assert "shm: " in error_output
        assert "Traceback" not in error_output


def test_a_closed_pipe_ends_the_export_without_a_message(database: str) -> None:
    insert_fleet(database, 500, texts=50)
    process = start_export("--format", "jsonl", database=database)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    error_output = process.stderr.read()
    process.stderr.close()
    assert process.wait(TIMEOUT_S) == 1
    assert b"Traceback" not in error_output
    assert b"Exception" not in error_output
