"""Starts on machines without hard links, without a home directory, or without an entry for the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("workers", ["1", "2"])
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
from shm.core.settings import Settings, default_data_dir
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


def test_an_unset_home_starts_and_enrols(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    server = ServerProcess(tmp_path / "data", {"SHM_DB_DSN": database}, executed=True)
    server.start()
    Install(server.url).enroll({"a": 1})
    assert server.terminate() == 0
    listed = run_shm("token", "list", SHM_DB_DSN=database)
    assert listed.returncode == 0, listed.stderr
