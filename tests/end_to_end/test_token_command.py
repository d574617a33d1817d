"""`shm token` on a database: while servers run, and before the first start."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, waiting_statements
from tests.support.parameters import long_after, long_rows_after
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM, run_shm


def status(server: ServerProcess, token: str, path: str = "stats") -> int:
    """The status of the response to a request with this token."""
    headers = {"Authorization": f"Bearer {token}"}
    return plain_http.get(f"{server.url}/api/v1/admin/{path}", headers=headers).status_code


def test_a_token_is_printed_once_and_is_valid_until_its_removal(server: ServerProcess, database: str) -> None:
    added = run_shm("token", "add", "nightly export", "--expires", "90d", SHM_DB_DSN=database)
    assert added.returncode == 0, added.stderr
    (token,) = added.stdout.splitlines()
    assert token not in added.stderr
    assert (status(server, token), status(server, token, "tokens")) == (200, 403)

    listed = run_shm("token", "list", "--dsn", database)
    _, newest, own = listed.stdout.splitlines()
    assert newest.split()[1] == "viewer"
    assert newest.endswith("nightly export")
    assert own.endswith("admin.token")
    assert token not in listed.stdout + listed.stderr

    removed = run_shm("token", "remove", newest.split()[0], SHM_DB_DSN=database)
    assert (removed.returncode, removed.stdout) == (0, "")
    assert "again" not in removed.stderr
    assert status(server, token) == 401
    assert len(run_shm("token", "list", SHM_DB_DSN=database).stdout.splitlines()) == 2


def test_a_new_admin_token_is_made_beside_the_database(postgres_dir: Path) -> None:
    data_dir = postgres_dir / "data"
    before = run_shm("token", "add", "first", "--role", "admin", "--data-dir", str(data_dir))
    assert before.returncode == 0, before.stderr
    server = ServerProcess(data_dir, {})
    server.start()
    try:
        assert status(server, before.stdout.strip(), "tokens") == 200
        second = run_shm("token", "add", "second", "--role", "admin", SHM_DATA_DIR=str(data_dir))
        assert status(server, second.stdout.strip(), "tokens") == 200
    finally:
        assert server.terminate() == 0


def test_revoking_the_servers_own_token_says_until_next_start(server: ServerProcess, database: str) -> None:
    (own,) = server.get("tokens").json()
    removed = run_shm("token", "remove", own["id"], SHM_DB_DSN=database)
    assert removed.returncode == 0
    assert "The next start makes it valid again" in removed.stderr
    assert status(server, server.admin_token) == 401


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    long_rows_after(
        3,
        [
            (("add", "x" * 101), "1 to 100 printable characters"),
            (("add", "SHM_ADMIN_TOKEN"), "reserved for the server's own token"),
            (("add", "x", "--role", "owner"), "invalid choice"),
            (("add", "x", "--expires", "soon"), "a duration such as"),
            (("add", "x"), "(SHM_MAX_TOKENS) is reached"),
            (("remove", str(uuid.UUID(int=0))), "No token has this ID"),
            (("remove", "x"), "an ID as `shm token list` shows it"),
            (("list", "--dsn", "host=127.0.0.1 port=1"), "could not be reached within 1 s"),
            ((), "COMMAND"),
        ],
    ),
)
def test_a_command_that_fails_prints_one_sentence(database: str, arguments: tuple[str, ...], sentence: str) -> None:
    more = {"SHM_DB_DSN": database, "SHM_START_PATIENCE": "1s", "SHM_MAX_TOKENS": "1"}
    run_shm("token", "add", "the only token", **more)
    done = run_shm("token", *arguments, **more)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("token", "list"), ("token", "--help"), ("--version",)])
@pytest.mark.parametrize("output", ["1>&-", "1>/dev/full"])
def test_an_output_that_cannot_be_written_is_a_sentence(database: str, output: str, arguments: tuple[str, ...]) -> None:
    completed = with_output(output, database, *arguments)
    assert completed.returncode == 1
    assert completed.stderr.splitlines()[-1].startswith("shm: Standard output cannot be written: ")
    assert "Traceback" not in completed.stderr


@pytest.mark.parametrize("output", ["1>&-", "1>/dev/full"])
def test_no_token_changes_where_it_cannot_be_printed(server: ServerProcess, database: str, output: str) -> None:
    old = run_shm("token", "add", "script", SHM_DB_DSN=database).stdout.strip()
    script = next(token for token in server.get("tokens").json() if token["name"] == "script")
    for arguments in (("add", "unseen"), ("rotate", script["id"])):
        completed = with_output(output, database, "token", *arguments)
        assert completed.returncode == 1
        assert completed.stderr.startswith("shm: Standard output cannot be written: ")
    assert "unseen" not in [token["name"] for token in server.get("tokens").json()]
    assert status(server, old) == 200


def test_a_token_whose_reader_has_gone_is_removed_again(database: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        completed = subprocess.run(
            [*SHM, "token", "add", "unseen"],
            env=os.environ | {"SHM_DB_DSN": database},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert completed.returncode == 1
    assert completed.stderr.splitlines()[-1] == "It was removed again, because it could not be printed."
    assert len(run_shm("token", "list", SHM_DB_DSN=database).stdout.splitlines()) == 1


def with_output(output: str, database: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`shm` with a redirection of a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {output}', "sh", *SHM, *arguments],
        env=os.environ | {"SHM_DB_DSN": database},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_token_name_cannot_control_the_terminal(database: str) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES ('x', 'viewer', E'a\\x1b]52;c;b\\x07')")
    assert "\x1b" not in run_shm("token", "list", SHM_DB_DSN=database).stdout


def test_a_rotated_token_keeps_its_id_and_role_and_the_old_secret_ends(server: ServerProcess, database: str) -> None:
    old = run_shm("token", "add", "script", "--role", "admin", "--expires", "90d", SHM_DB_DSN=database).stdout.strip()
    before = next(token for token in server.get("tokens").json() if token["name"] == "script")
    rotated = run_shm("token", "rotate", before["id"], SHM_DB_DSN=database)
    assert rotated.returncode == 0, rotated.stderr
    (new,) = rotated.stdout.splitlines()
    assert new not in rotated.stderr
    assert (status(server, old), status(server, new, "tokens")) == (401, 200)
    after = next(token for token in server.get("tokens").json() if token["name"] == "script")
    unchanged = ("id", "name", "role", "created_at", "expires_at")
    assert [after[name] for name in unchanged] == [before[name] for name in unchanged]
    (again,) = run_shm("token", "rotate", before["id"], SHM_DB_DSN=database).stdout.splitlines()
    assert (status(server, new), status(server, again, "tokens")) == (401, 200)


def test_the_servers_own_token_is_rotated_with_its_file(server: ServerProcess, database: str, tmp_path: Path) -> None:
    (own,) = server.get("tokens").json()
    old, file = server.admin_token, server.data_dir / "admin.token"
    elsewhere = run_shm("token", "rotate", own["id"], "--data-dir", str(tmp_path), SHM_DB_DSN=database)
    assert (elsewhere.returncode != 0, "--data-dir" in elsewhere.stderr) == (True, True)
    assert not (tmp_path / "admin.token").exists()
    path = f"{server.url}/api/v1/admin/tokens/{own['id']}/rotate"
    refused = plain_http.post(path, headers={"Authorization": f"Bearer {old}"})
    assert (refused.status_code, refused.json()["code"]) == (409, "servers_own_token")
    rotated = run_shm("token", "rotate", own["id"], "--data-dir", str(server.data_dir), SHM_DB_DSN=database)
    assert rotated.returncode == 0, rotated.stderr
    assert file.read_text().strip() == rotated.stdout.strip() != old
    assert file.stat().st_mode & 0o777 == 0o600
    assert (status(server, old), status(server, rotated.stdout.strip(), "tokens")) == (401, 200)


@contextmanager
def blocked_rotation(server: ServerProcess, database: str, table: str = "tokens") -> Iterator["subprocess.Popen[str]"]:
    """A rotation of the server's own token that waits for a table; it may continue afterwards.

    It writes to `audit` before the new secret is in a file, and to `tokens` after that.
    """
    (own,) = server.get("tokens").json()
    arguments = ["token", "rotate", own["id"], "--data-dir", str(server.data_dir), "--dsn", database]
    with admin_cursor(database) as cursor:
        cursor.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")
        with subprocess.Popen([*SHM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(lambda: is_blocked(database, table), "the statement that writes to the table")
                yield process
            finally:
                cursor.execute("ROLLBACK")


def is_blocked(database: str, table: str) -> bool:
    """Whether the statement that replaces the secret, or that records the rotation, waits."""
    part = {"tokens": "UPDATE tokens SET token_hash", "audit": "INSERT INTO audit"}[table]
    return any(part in statement for statement in waiting_statements(database))


@pytest.mark.long
def test_a_rotation_that_is_killed_before_its_commit_changes_nothing(server: ServerProcess, database: str) -> None:
    old = server.admin_token
    with blocked_rotation(server, database) as process:
        with admin_cursor(database) as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE '%UPDATE tokens SET token_hash%' AND wait_event_type = 'Lock'"
            )
        process.kill()
    assert server.terminate() == 0
    server.start()
    assert server.admin_token == old
    assert status(server, old) == 200
    assert len(server.get("tokens").json()) == 1
    assert [path.name for path in server.data_dir.glob("admin.token*") if path.suffix != ".lock"] == ["admin.token"]


@pytest.mark.parametrize("then", long_after(1, ["start", "rotate"]))
def test_a_rotation_that_is_killed_after_its_commit_is_completed(
    server: ServerProcess, database: str, then: str
) -> None:
    """The statement that waits in PostgreSQL is committed without a client. The next start or rotation goes on."""
    old = server.admin_token
    with blocked_rotation(server, database) as process:
        staged = (server.data_dir / "admin.token.next").read_text().strip()
        (own,) = server.get("tokens").json()
        process.kill()
    wait_for(lambda: status(server, old) == 401, "the commit")
    if then == "start":
        assert server.terminate() == 0
        server.start()
        assert server.admin_token == staged
    else:
        rotated = run_shm("token", "rotate", own["id"], "--data-dir", str(server.data_dir), SHM_DB_DSN=database)
        assert rotated.returncode == 0, rotated.stderr
        assert server.admin_token == rotated.stdout.strip() not in (old, staged)
        assert status(server, staged) == 401
    assert (status(server, old), status(server, server.admin_token)) == (401, 200)
    assert [token["id"] for token in server.get("tokens").json()] == [own["id"]]
    assert not (server.data_dir / "admin.token.next").exists()


@pytest.mark.parametrize("table", long_after(1, ["audit", "tokens"]))
def test_a_start_during_a_rotation_waits_for_it(server: ServerProcess, database: str, table: str) -> None:
    """So it does not make the old secret valid again, whether the new one is in a file already or not."""
    old = server.admin_token
    second = ServerProcess(server.data_dir, {"SHM_DB_DSN": database})
    with ThreadPoolExecutor(1) as threads:
        with blocked_rotation(server, database, table):
            assert (server.data_dir / "admin.token.next").exists() == (table == "tokens")
            starting = threads.submit(second.start)
            wait_for(lambda: "waiting for another shm process" in second.log or starting.done(), "the second server")
            assert not starting.done()
        starting.result()
    try:
        assert server.admin_token != old
        assert (status(server, old), status(server, server.admin_token)) == (401, 200)
        assert len(server.get("tokens").json()) == 1
    finally:
        second.terminate()


def test_a_rotation_that_cannot_write_says_so_and_is_not_recorded(server: ServerProcess, database: str) -> None:
    (own,) = server.get("tokens").json()
    lock = server.data_dir / "admin.token.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    refused = run_shm("token", "rotate", own["id"], "--data-dir", str(server.data_dir), SHM_DB_DSN=database)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "Make its directory writable" in refused.stderr
    assert not [entry for entry in server.get("audit").json() if entry["action"] == "rotate_token"]


def test_concurrent_rotations_leave_the_file_with_the_valid_secret(server: ServerProcess, database: str) -> None:
    old = server.admin_token
    (own,) = server.get("tokens").json()
    arguments = ("token", "rotate", own["id"], "--data-dir", str(server.data_dir))
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: run_shm(*arguments, SHM_DB_DSN=database), range(3)))
    assert all("Traceback" not in each.stderr for each in done)
    printed = [each.stdout.strip() for each in done if each.returncode == 0]
    assert server.admin_token in printed, [each.stderr for each in done]
    assert [status(server, token) for token in {old, *printed} - {server.admin_token}] == [401] * len(printed)
    assert status(server, server.admin_token) == 200


def test_a_token_of_the_environment_is_not_rotated(database: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": database, "SHM_ADMIN_TOKEN": "x" * 30})
    server.start()
    try:
        headers = {"Authorization": f"Bearer {'x' * 30}"}
        (own,) = plain_http.get(f"{server.url}/api/v1/admin/tokens", headers=headers).json()
        refused = run_shm("token", "rotate", own["id"], SHM_DB_DSN=database)
        assert (refused.returncode != 0, "SHM_ADMIN_TOKEN" in refused.stderr) == (True, True)
    finally:
        server.terminate()
    unknown = run_shm("token", "rotate", str(uuid.uuid4()), SHM_DB_DSN=database)
    assert (unknown.returncode != 0, "No token has this ID" in unknown.stderr) == (True, True)
