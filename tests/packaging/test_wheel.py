"""The wheel on its own: built, installed with its locked dependencies in an empty virtualenv, run elsewhere."""

import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.server_process import END_LIMIT_S, START_LIMIT_S, free_port

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sysconfig.get_path("scripts")) / "uv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtualenv that holds the wheel, its locked dependencies and nothing else."""
    virtualenv = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(str(UV), "venv", "--quiet", "--no-project", "--python", sys.executable, str(virtualenv), cwd=wheel.parent)
    install = (str(UV), "pip", "install", "--quiet", "--python", str(virtualenv))
    run(*install, "--require-hashes", "--requirements", str(ROOT / "requirements-server.lock"), cwd=wheel.parent)
    run(*install, "--no-deps", str(wheel), cwd=wheel.parent)
    return virtualenv / "bin"


def test_the_wheel_holds_all_sql(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("shm/") for name in archive.namelist() if name.startswith("shm/sql/")}
    assert packed == {str(file.relative_to(ROOT)) for file in (ROOT / "sql").rglob("*") if file.is_file()}
    assert any(name.startswith("sql/migrations/") for name in packed)


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert contents(build("wheel", source, tmp_path)) == contents(wheel)


def test_the_lock_holds_all_that_the_wheel_needs(programs: Path) -> None:
    run(str(UV), "pip", "check", "--python", str(programs / "python"), cwd=programs)


def test_the_installed_command_lists_its_subcommands(programs: Path, tmp_path: Path) -> None:
    said = run(str(programs / "shm"), "--help", cwd=tmp_path)
    for command in ("serve", "migrate", "console", "token"):
        assert f"\n    {command} " in said


def test_the_installed_client_is_there_for_scripts(programs: Path, tmp_path: Path) -> None:
    code = "import shm_client, pathlib; print(shm_client.feed.__name__, pathlib.Path(shm_client.__file__).parents[0])"
    name, folder = run(str(programs / "python"), "-c", code, cwd=tmp_path).split()
    assert name == "feed"
    assert Path(folder).is_relative_to(programs.parent)
    assert (Path(folder) / "py.typed").exists()


def test_the_demo_without_the_sdk_says_how_to_install_it(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(programs / "shm"), "demo", "--data-dir", str(tmp_path / "demo")],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("In a checkout of SHM: pip install ./sdk")
    assert not (tmp_path / "demo").exists()


def test_an_installed_server_migrates_and_serves(programs: Path, database: str, tmp_path: Path) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")  # the migrations must come from the wheel
    data_dir, port = tmp_path / "data", free_port()
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        server = subprocess.Popen(
            [str(programs / "shm"), "serve", "--port", str(port), "--data-dir", str(data_dir), "--dsn", database],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not answers(f"http://127.0.0.1:{port}/api/v1/ready"):
            assert server.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
        token = (data_dir / "admin.token").read_text().strip()
        stats = plain_http.get(
            f"http://127.0.0.1:{port}/api/v1/admin/stats", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        assert stats.json()["total_instances"] == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(END_LIMIT_S) == 0, log_file.read_text()
    finally:
        server.kill()
        server.wait(END_LIMIT_S)


def build(target: str, source: Path, into: Path) -> Path:
    """Builds a wheel or an sdist of `source` in a folder of its own below `into`."""
    folder = into / f"built-{target}" / source.name
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=source)
    (built,) = folder.iterdir()
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    """A wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run(*command: str, cwd: Path) -> str:
    """Runs it to its end, which must be a good one; returns what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """This process's environment without what could lead back to the checkout or to its virtualenv."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return plain_http.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
