"""A command ends after all its child processes, whichever signal ends it at any moment."""

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

LIMIT_S = 60
LONG_ROUNDS = 25
START_S = 4.0  # about as long as a whole first start takes here
SHM = (sys.executable, "-m", "shm.cli")
ONCE = (signal.SIGTERM,)
COMMANDS = {
    "serve": ("serve", "--port", "0"),
    "serve with workers": ("serve", "--port", "0", "--workers", "2"),
    "migrate": ("migrate",),
    "check": ("check",),
    "export": ("export",),
    "token": ("token", "list"),
    "demo": ("demo", "--instances", "3"),
}


def processes_of(folder: Path) -> list[str]:
    """The processes with a folder in their command line or as their working directory."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and (
                str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder))
            ):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command on a data directory, with its output in a file beside it. All its processes are killed at the end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHM_")}
    with folder.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [*SHM, *arguments, "--data-dir", str(folder)],
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT_S)
        for line in processes_of(folder):
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def await_initdb(folder: Path) -> int:
    """Returns the process ID of the initdb that creates a database in `folder`."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for line in processes_of(folder):
            if "/initdb" in line and " -c " not in line:
                return int(line.split()[0])
        time.sleep(0.01)
    raise AssertionError("initdb was not started")


def await_log(folder: Path, text: str) -> None:
    """Returns once the commands on `folder` have logged the text."""
    deadline = time.monotonic() + LIMIT_S
    while text not in folder.with_suffix(".log").read_text():
        assert time.monotonic() < deadline, f"never logged: {text}"
        time.sleep(0.02)


def check_end(process: "subprocess.Popen[bytes]", folder: Path, statuses: set[int]) -> None:
    """Asserts that the command ends with one of the statuses, after all its processes, and logs no traceback."""
    status = process.wait(LIMIT_S)
    left = processes_of(folder)
    log = folder.with_suffix(".log").read_text()
    assert left == [], log
    assert status in statuses, log
    assert "Traceback" not in log


def check_start(folder: Path) -> None:
    """Asserts that another command creates the database or finds it complete."""
    with command(folder, "migrate") as process:
        check_end(process, folder, {0})
    assert sorted(path.name for path in folder.glob("postgres*")) == ["postgres", "postgres.lock", "postgres.users"]


def end_while_created(folder: Path, arguments: tuple[str, ...], numbers: tuple[signal.Signals, ...], s: float) -> None:
    """Sends the signals `s` seconds after initdb has started."""
    with command(folder, *arguments) as process:
        await_initdb(folder)
        time.sleep(s)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.02)
        check_end(process, folder, {0, 128 + numbers[0], 128 + signal.SIGTERM})


def test_an_end_while_the_database_is_created_ends_initdb(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    end_while_created(folder, COMMANDS["serve with workers"], (signal.SIGINT, signal.SIGINT, signal.SIGTERM), 0)
    check_start(folder)


def test_the_demo_ends_after_its_server_and_its_database(postgres_dir: Path) -> None:
    end_while_created(postgres_dir / "data", COMMANDS["demo"], (signal.SIGTERM,), 0.2)


def test_a_start_waits_for_the_initdb_of_one_that_was_killed(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "migrate") as process:
        initdb = psutil.Process(await_initdb(folder))
        initdb.suspend()
        process.kill()
        process.wait(LIMIT_S)
        with command(folder, "migrate") as following:
            await_log(folder, "waiting for another shm")
            initdb.resume()
            check_end(following, folder, {0})


def test_an_initdb_that_does_not_end_is_killed_with_its_children(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "migrate") as process:
        initdb = psutil.Process(await_initdb(folder))
        stuck: list[psutil.Process] = []
        while not stuck:
            for child in initdb.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.suspend()
                    stuck.append(child)
        process.send_signal(signal.SIGTERM)
        check_end(process, folder, {128 + signal.SIGTERM})
        assert not any(child.is_running() for child in stuck)
    assert not (folder / "postgres.new").exists()


def test_a_server_that_has_just_begun_to_start_is_stopped(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "serve", "--port", "0") as process:
        while not (folder / "postgres" / "postmaster.pid").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        check_end(process, folder, {128 + signal.SIGTERM})


@pytest.mark.parametrize("program", ["sleep", "postgres"])
def test_a_process_that_took_a_dead_servers_number_is_left_alone(postgres_dir: Path, program: str) -> None:
    """The start heals by itself, and no signal reaches the other process, whatever it is called."""
    folder = postgres_dir / "data"
    check_start(folder)
    executable = postgres_dir / program
    shutil.copy(shutil.which("sleep") or "", executable)
    executable.chmod(0o755)
    postgres_dir.chmod(0o755)
    with subprocess.Popen([executable, "600"], cwd="/", user=(folder / "postgres").stat().st_uid) as other:
        try:
            lines = (str(other.pid), str(folder / "postgres"), "0", "5432", str(folder / "postgres"), "", "")
            (folder / "postgres" / "postmaster.pid").write_text("\n".join(lines))
            check_start(folder)
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_an_end_at_any_moment_leaves_no_process(postgres_dir: Path, name: str) -> None:
    seed = int(os.environ.get("CHILDREN_SEED") or secrets.randbits(32))
    print(f"repeat it with CHILDREN_SEED={seed}")
    by_chance = random.Random(seed)
    for number in range(LONG_ROUNDS):
        folder = postgres_dir / f"data{number}"
        numbers = by_chance.choices((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), k=by_chance.choice((1, 1, 2, 3)))
        end_while_created(folder, COMMANDS[name], tuple(numbers), by_chance.uniform(0, START_S))
        check_start(folder)
