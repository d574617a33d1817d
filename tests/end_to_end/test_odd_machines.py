"""Starts on machines without hard links, without a home directory, or without an entry for the user."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

# `os.link` fails as on FAT, on exFAT and on some network file systems.
WITHOUT_HARD_LINKS = """
import errno, os
def link(*_, **__):
    raise OSError(errno.{error}, os.strerror(errno.{error}))
os.link = link
"""


@pytest.mark.parametrize(
    "error", ["EPERM", *(pytest.param(error, marks=pytest.mark.long) for error in ("EOPNOTSUPP", "ENOSYS", "EMLINK"))]
)
def test_a_data_directory_without_hard_links_is_usable(database: str, tmp_path: Path, error: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_HARD_LINKS.format(error=error))
    environment = {"SHM_DB_DSN": database, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    server = ServerProcess(tmp_path / "data", environment)
    for _ in range(2):
        server.start()
        token = server.admin_token
        assert server.get("stats").status_code == 200
        assert server.terminate() == 0
        assert server.admin_token == token
    assert (tmp_path / "data" / "admin.token").stat().st_mode & 0o777 == 0o600


WITHOUT_IPV6 = """
import errno, os, socket
class Socket(socket.socket):
    def __init__(self, family=-1, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *arguments, **options)
socket.socket = Socket
"""


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.long), "2"])
def test_all_addresses_are_those_that_the_machine_has(database: str, tmp_path: Path, workers: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_IPV6)
    environment = {
        "SHM_DB_DSN": database,
        "SHM_HOST": "[::]",
        "SHM_WORKERS": workers,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    server = ServerProcess(tmp_path / "data", environment)
    server.start()
    assert server.get("stats").status_code == 200
    assert server.terminate() == 0


RUN = "exec(os.environ['SCRIPT'])"
WITHOUT_NAME = """
import os, pwd
from shm.core.default_data_dir import default_data_dir
from shm.core.settings import Settings
print(default_data_dir(), Settings.load({}).data_dir)
try:
    Settings.load({"SHM_DATA_DIR": "~/x"})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_user_without_a_home_directory_has_a_default_data_directory() -> None:
    """A container may run with a user ID that has no entry."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, pwd; pwd.getpwuid = {{}}.__getitem__; os.geteuid = lambda: 54321; {RUN}"],
        env={"PATH": os.defpath, "SCRIPT": WITHOUT_NAME},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "/var/lib/shm /var/lib/shm",
        "ConfigurationError SHM_DATA_DIR='~/x' is invalid: expected an absolute path, because this user has no home "
        "directory.",
    ], done.stderr


# `shm` as another user. The modules are imported first: that user may have no access to the interpreter's folder.
AS_USER = """
import os, sys
import concurrent.futures.thread, encodings.idna
import shm.cli.migrate, shm.cli.serve, shm.cli.token
from shm.cli.main import main
os.setgroups([])
os.setgid({user})
os.setuid({user})
sys.exit(main(sys.argv[1:]))
"""
NAMELESS, NOBODY = 54321, 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def run_as(user: int, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `shm` as a user without a home directory."""
    return subprocess.run(
        [sys.executable, "-c", AS_USER.format(user=user), *arguments],
        env={"PATH": os.defpath, "SHM_START_PATIENCE": "1s", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@needs_root
def test_what_a_user_without_a_name_cannot_do_has_a_remedy(postgres_dir: Path) -> None:
    """Such a user has no default role, and cannot run initdb. With a role in the DSN it reaches PostgreSQL."""
    postgres_dir.chmod(0o777)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"host=127.0.0.1 port={closed.getsockname()[1]}"
        no_role = run_as(NAMELESS, "migrate", DATABASE_URL=host)
        unreachable = run_as(NAMELESS, "migrate", DATABASE_URL=f"{host} user=shm")
    assert no_role.returncode == unreachable.returncode == 1
    assert f"The user ID {NAMELESS}" in no_role.stderr
    assert "Add a role to DATABASE_URL" in no_role.stderr
    assert "No server listens on the host and port of DATABASE_URL" in unreachable.stderr
    embedded = run_as(NAMELESS, "migrate", "--data-dir", str(postgres_dir / "data"))
    assert embedded.returncode == 1
    assert embedded.stderr.splitlines()[-1].startswith("shm: An embedded PostgreSQL cannot be created by the user ID")
    assert f"`useradd --uid {NAMELESS} shm`" in embedded.stderr
    assert not (postgres_dir / "data" / "postgres").exists()
    for done in (no_role, unreachable, embedded):
        assert "Traceback" not in done.stderr


@needs_root
def test_a_data_directory_that_is_not_writable_is_named_with_a_remedy(postgres_dir: Path) -> None:
    postgres_dir.chmod(0o755)
    data_dir = postgres_dir / "data"
    cases = [("migrate", "--data-dir", str(data_dir)), ("migrate", "--data-dir", str(postgres_dir))]
    for arguments in cases:
        done = run_as(NOBODY, *arguments)
        assert done.returncode == 1
        assert "Make it writable for the user that runs shm, or use another SHM_DATA_DIR." in done.stderr
        assert "Traceback" not in done.stderr
    data_dir.mkdir()
    os.chown(data_dir, NOBODY, NOBODY)
    assert run_as(NOBODY, "migrate", "--data-dir", str(data_dir)).returncode == 0
    (data_dir / "postgres").chmod(0o500)
    done = run_as(NOBODY, "token", "list", "--data-dir", str(data_dir))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"shm: {data_dir / 'postgres'} is not writable.")


def test_an_admin_token_that_cannot_be_created_is_named_with_a_remedy(database: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no directory")
    done = run_shm("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), SHM_DB_DSN=database)
    assert done.returncode == 1
    assert "use another SHM_DATA_DIR, or set SHM_ADMIN_TOKEN." in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unset_home_starts_and_enrols(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python removes docstrings, which the OpenAPI document is made of."""
    monkeypatch.delenv("HOME")
    server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": database, "PYTHONOPTIMIZE": "2"})
    server.start()
    Install(server.url).enroll({"a": 1})
    assert plain_http.get(f"{server.url}/api/openapi.json").json()["paths"]
    assert server.terminate() == 0
    listed = run_shm("token", "list", SHM_DB_DSN=database)
    assert listed.returncode == 0, listed.stderr


@pytest.mark.long
def test_a_umask_that_denies_the_owner_stops_no_start(postgres_dir: Path) -> None:
    server = ServerProcess(postgres_dir / "data", {}, before=("sh", "-c", 'umask 0777 && exec "$@"', "sh"))
    server.start()
    Install(server.url).enroll({"n": 1})
    assert server.terminate() == 0
    assert (postgres_dir / "data" / "admin.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_a_data_directory_may_have_unusual_characters(postgres_dir: Path) -> None:
    server = ServerProcess(postgres_dir / "a b'c%s%20é北 ;#&()*?[x]~!=", {})
    server.start()
    Install(server.url).enroll({"n": 1})
    assert server.terminate() == 0
