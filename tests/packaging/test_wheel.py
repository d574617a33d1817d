"""The wheel: built, installed with its locked dependencies in an empty virtualenv, and run outside the checkout."""

import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support import plain_http
from tests.support.built_distributions import ROOT, UV, build, contents, environment, run
from tests.support.databases import empty_schema
from tests.support.server_process import END_LIMIT_S, START_LIMIT_S, free_port


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtualenv with the wheel, its locked dependencies and nothing else."""
    virtualenv = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(str(UV), "venv", "--quiet", "--no-project", "--python", sys.executable, str(virtualenv), cwd=wheel.parent)
    install = (str(UV), "pip", "install", "--quiet", "--python", str(virtualenv))
    run(*install, "--require-hashes", "--requirements", str(ROOT / "requirements-server.lock"), cwd=wheel.parent)
    run(*install, "--no-deps", str(wheel), cwd=wheel.parent)
    return virtualenv / "bin"


def test_the_wheel_contains_all_sql(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name.removeprefix("shm/") for name in archive.namelist() if name.startswith("shm/sql/")}
    assert in_wheel == {str(file.relative_to(ROOT)) for file in (ROOT / "sql").rglob("*") if file.is_file()}
    assert any(name.startswith("sql/migrations/") for name in in_wheel)


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert contents(build("wheel", source, tmp_path)) == contents(wheel)


def test_the_lock_contains_all_dependencies_of_the_wheel(programs: Path) -> None:
    run(str(UV), "pip", "check", "--python", str(programs / "python"), cwd=programs)


def test_the_installed_command_lists_its_subcommands(programs: Path, tmp_path: Path) -> None:
    help_text = run(str(programs / "shm"), "--help", cwd=tmp_path)
    for command in ("serve", "migrate", "console", "token"):
        assert f"\n    {command} " in help_text


def test_scripts_can_import_the_installed_client(programs: Path, tmp_path: Path) -> None:
    code = "import shm_client, pathlib; print(shm_client.feed.__name__, pathlib.Path(shm_client.__file__).parents[0])"
    name, folder = run(str(programs / "python"), "-c", code, cwd=tmp_path).split()
    assert name == "feed"
    assert Path(folder).is_relative_to(programs.parent)
    assert (Path(folder) / "py.typed").exists()


def test_the_demo_without_the_sdk_explains_how_to_install_it(programs: Path, tmp_path: Path) -> None:
    completed = subprocess.run(
        [str(programs / "shm"), "demo", "--data-dir", str(tmp_path / "demo")],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr.strip().endswith("In a checkout of SHM: pip install ./sdk")
    assert not (tmp_path / "demo").exists()


def test_an_installed_server_migrates_and_serves(programs: Path, database: str, tmp_path: Path) -> None:
    empty_schema(database)  # so that the migrations of the wheel run
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
        while not is_ready(f"http://127.0.0.1:{port}/api/v1/ready"):
            assert server.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
        token = (data_dir / "admin.token").read_text().strip()
        stats = plain_http.get(
            f"http://127.0.0.1:{port}/api/v1/admin/stats", headers={"Authorization": f"Bearer {token}"}
        )
        assert stats.json()["total_instances"] == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(END_LIMIT_S) == 0, log_file.read_text()
    finally:
        server.kill()
        server.wait(END_LIMIT_S)


def is_ready(url: str) -> bool:
    """Whether a GET request gets 200."""
    try:
        return plain_http.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
