"""Data directories after a power cut, of other programs, and with files that are not what they should be."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shm_command import run_shm


@pytest.fixture(scope="module")
def created() -> Iterator[Path]:
    """A data directory with a database; no server runs in it."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder:
        data_dir = Path(folder) / "data"
        done = run_shm("migrate", "--data-dir", str(data_dir))
        assert done.returncode == 0, done.stderr
        Path(folder).chmod(0o755)
        yield data_dir


def write_as_postgres(data_dir: Path, file: Path, content: bytes) -> None:
    """Writes a file as PostgreSQL's user would have left it."""
    owner = (data_dir / "postgres").stat()
    file.write_bytes(content)
    file.chmod(0o600)
    os.chown(file, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\0" * 80, id="zeros", marks=pytest.mark.long),
        pytest.param(b"-1\nx\n", id="negative", marks=pytest.mark.long),
        pytest.param(b"", id="empty", marks=pytest.mark.long),
        pytest.param(b"\xff\xfe1\n", id="bytes", marks=pytest.mark.long),
        pytest.param(b"x\n", id="text", marks=pytest.mark.long),
        pytest.param(b"99999999999999999999\n", id="beyond any PID"),
    ],
)
def test_a_damaged_pid_file_does_not_stop_the_start(created: Path, content: bytes) -> None:
    write_as_postgres(created, created / "postgres" / "postmaster.pid", content)
    done = run_shm("migrate", "--data-dir", str(created))
    assert done.returncode == 0, done.stderr
    assert not (created / "postgres" / "postmaster.pid").exists()


def test_pipes_in_the_place_of_files_stop_no_start(created: Path) -> None:
    """PostgreSQL's user can replace each file of the cluster, and reading a pipe would never end."""
    cluster = created / "postgres"
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock", "shm.conf", "log"):
        (cluster / name).unlink(missing_ok=True)
        os.mkfifo(cluster / name)
    done = run_shm("migrate", "--data-dir", str(created))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (cluster / "shm.conf").is_file()


@pytest.mark.parametrize(
    "length", [pytest.param(4, id="in the cluster"), pytest.param(90, id="beside it", marks=pytest.mark.long)]
)
def test_a_stale_lock_of_the_socket_does_not_stop_the_start(length: int) -> None:
    """A killed PostgreSQL leaves it beside postmaster.pid. Its PID may now be that of another process."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder:
        data_dir = Path(folder) / ("x" * length)
        assert run_shm("migrate", "--data-dir", str(data_dir)).returncode == 0
        Path(folder).chmod(0o755)
        socket_dir = data_dir / "postgres"
        if length > 50:
            configuration = (data_dir / "postgres" / "shm.conf").read_text()
            (line,) = [line for line in configuration.splitlines() if line.startswith("unix_socket_directories")]
            socket_dir = Path(line.split("'")[1])
            assert socket_dir != data_dir / "postgres"
            socket_dir.mkdir(mode=0o700)
            owner = (data_dir / "postgres").stat()
            os.chown(socket_dir, owner.st_uid, owner.st_gid)
        with subprocess.Popen(["sleep", "600"], cwd="/", user=(data_dir / "postgres").stat().st_uid) as other:
            try:
                content = f"{other.pid}\n{data_dir}/postgres\n0\n5432\n{socket_dir}\n".encode()
                write_as_postgres(data_dir, socket_dir / ".s.PGSQL.5432.lock", content)
                done = run_shm("migrate", "--data-dir", str(data_dir))
                assert done.returncode == 0, done.stderr
                assert other.poll() is None
            finally:
                other.kill()
        assert not list(socket_dir.glob(".s.PGSQL.*"))


@pytest.mark.parametrize("kind", ["file", "directory with a file", "link to nothing"])
def test_what_is_no_database_is_neither_used_nor_removed(tmp_path: Path, kind: str) -> None:
    cluster = tmp_path / "data" / "postgres"
    cluster.parent.mkdir()
    if kind == "file":
        cluster.write_text("x")
    elif kind == "link to nothing":
        cluster.symlink_to(tmp_path / "nothing")
    else:
        cluster.mkdir()
        (cluster / "x").write_text("x")
    done = run_shm("migrate", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert str(cluster) in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.is_symlink() or (cluster if kind == "file" else cluster / "x").read_text() == "x"


@pytest.mark.parametrize("name", ["postgres.lock", "postgres.users"])
@pytest.mark.parametrize("kind", ["directory", "link"])
def test_an_unusable_lock_file_is_named_in_a_sentence(created: Path, name: str, kind: str) -> None:
    file = created / name
    file.unlink(missing_ok=True)
    if kind == "directory":
        file.mkdir()
    else:
        file.symlink_to("/etc/passwd")
    try:
        done = run_shm("migrate", "--data-dir", str(created))
    finally:
        shutil.rmtree(file) if kind == "directory" else file.unlink()
    assert done.returncode == 1
    assert f"The data directory {created} cannot be used" in done.stderr
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_linked_data_directory_is_the_same_one(created: Path) -> None:
    link = created.with_name("link")
    link.symlink_to(created)
    done = run_shm("token", "list", "--data-dir", str(link))
    assert done.returncode == 0, done.stderr


def test_a_missing_temporary_directory_is_said_in_a_sentence(created: Path) -> None:
    """As in a container with a read-only file system and no /tmp."""
    script = "import tempfile, runpy, sys; tempfile._candidate_tempdir_list = lambda: ['/nowhere'];"
    script += f"sys.argv = ['shm', 'migrate', '--data-dir', {str(created)!r}];"
    script += "runpy.run_module('shm.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "No usable temporary directory" in done.stderr
    assert "Traceback" not in done.stderr
