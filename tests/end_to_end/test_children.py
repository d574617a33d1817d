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

TIMEOUT_S = 60
LONG_ROUNDS = 25
READ_S = 2.0  # more than a command that reads takes
START_S = 4.0  # about the duration of a complete first start
SHM = (sys.executable, "-m", "shm.cli")
COMMANDS = {
    "serve": ("serve", "--port", "0"),
    "serve with workers": ("serve", "--port", "0", "--workers", "2"),
    "migrate": ("migrate",),
    "demo": ("demo", "--instances", "3"),
}
COMMANDS_THAT_READ = {
    "check": ("check",),
    "export": ("export",),
    "token": ("token", "list"),
}  # these create no database


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
    """A command on a data directory, with its output in a file next to it. All its processes are killed at the end."""
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
        process.wait(TIMEOUT_S)
        for line in processes_of(folder):
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def wait_for_initdb(folder: Path) -> int:
    """Waits for the initdb that creates a database in `folder`, and returns its PID."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for line in processes_of(folder):
            if "/initdb" in line and " -c " not in line:
                return int(line.split()[0])
        time.sleep(0.01)
    raise AssertionError("initdb was not started")


def wait_for_handlers(process: "subprocess.Popen[bytes]") -> None:
    """Waits until the command handles signals: before that, an interrupt ends Python itself with a traceback."""
    sigterm = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) & sigterm:
            return
        time.sleep(0.01)


def wait_for_log(folder: Path, text: str) -> None:
    """Waits until the commands on `folder` have logged the text."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in folder.with_suffix(".log").read_text():
        assert time.monotonic() < deadline, f"timed out waiting for the log line: {text}"
        time.sleep(0.02)


def assert_ends(process: "subprocess.Popen[bytes]", folder: Path, statuses: set[int]) -> None:
    """Asserts that the command ends with one of the statuses, after all its processes, and logs no traceback."""
    status = process.wait(TIMEOUT_S)
    remaining = processes_of(folder)
    log = folder.with_suffix(".log").read_text()
    assert remaining == [], log
    assert status in statuses, log
    assert "Traceback" not in log


def assert_next_start_works(folder: Path) -> None:
    """Asserts that another command creates the database or finds it complete."""
    with command(folder, "migrate") as process:
        assert_ends(process, folder, {0})
    assert sorted(path.name for path in folder.glob("postgres*")) == ["postgres", "postgres.lock", "postgres.users"]


def interrupt(
    folder: Path, arguments: tuple[str, ...], numbers: tuple[signal.Signals, ...], delay_s: float, *, creates: bool
) -> None:
    """Starts a command, sends it the signals after `delay_s` seconds, and checks its end.

    The delay begins when the command handles signals; with `creates` when the initdb of its database has started.
    """
    with command(folder, *arguments) as process:
        if creates:
            wait_for_initdb(folder)
        else:
            wait_for_handlers(process)
        time.sleep(delay_s)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.02)
        caught = {128 + number for number in numbers}
        uncaught = {-number for number in numbers}  # after its work
        assert_ends(process, folder, {0, 128 + signal.SIGTERM} | caught | uncaught)


def seeded_random() -> random.Random:
    """Random numbers of a seed that is printed, so that a run can be repeated."""
    seed = int(os.environ.get("CHILDREN_SEED") or secrets.randbits(32))
    print(f"to repeat this run: CHILDREN_SEED={seed}")
    return random.Random(seed)


def random_signals(rng: random.Random) -> tuple[signal.Signals, ...]:
    """One to three signals that end a command."""
    return tuple(rng.choices((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), k=rng.choice((1, 1, 2, 3))))


def test_a_signal_during_initdb_ends_initdb_too(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    interrupt(folder, COMMANDS["serve with workers"], (signal.SIGINT, signal.SIGINT, signal.SIGTERM), 0, creates=True)
    assert_next_start_works(folder)


@pytest.mark.long
def test_the_demo_ends_after_its_server_and_its_database(postgres_dir: Path) -> None:
    interrupt(postgres_dir / "data", COMMANDS["demo"], (signal.SIGTERM,), 0.2, creates=True)


def test_a_start_waits_for_the_initdb_of_a_killed_start(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "migrate") as process:
        initdb = psutil.Process(wait_for_initdb(folder))
        initdb.suspend()
        process.kill()
        process.wait(TIMEOUT_S)
        with command(folder, "migrate") as following:
            wait_for_log(folder, "waiting for another shm")
            initdb.resume()
            assert_ends(following, folder, {0})


def test_an_initdb_that_does_not_end_is_killed_with_its_children(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "migrate") as process:
        initdb = psutil.Process(wait_for_initdb(folder))
        stuck: list[psutil.Process] = []
        while not stuck:
            for child in initdb.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.suspend()
                    stuck.append(child)
        process.send_signal(signal.SIGTERM)
        assert_ends(process, folder, {128 + signal.SIGTERM})
        assert not any(child.is_running() for child in stuck)
    assert not (folder / "postgres.new").exists()


@pytest.mark.long
def test_a_server_is_stopped_right_after_its_postgres_started(postgres_dir: Path) -> None:
    folder = postgres_dir / "data"
    with command(folder, "serve", "--port", "0") as process:
        while not (folder / "postgres" / "postmaster.pid").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert_ends(process, folder, {128 + signal.SIGTERM})


@pytest.mark.parametrize("program", ["postgres", pytest.param("sleep", marks=pytest.mark.long)])
def test_a_process_with_the_pid_of_a_dead_postgres_gets_no_signal(postgres_dir: Path, program: str) -> None:
    """The start works, and the other process gets no signal, whatever its name is."""
    folder = postgres_dir / "data"
    assert_next_start_works(folder)
    executable = postgres_dir / program
    shutil.copy(shutil.which("sleep") or "", executable)
    executable.chmod(0o755)
    postgres_dir.chmod(0o755)
    with subprocess.Popen([executable, "600"], cwd="/", user=(folder / "postgres").stat().st_uid) as other:
        try:
            lines = (str(other.pid), str(folder / "postgres"), "0", "5432", str(folder / "postgres"), "", "")
            (folder / "postgres" / "postmaster.pid").write_text("\n".join(lines))
            assert_next_start_works(folder)
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment_leaves_no_process(postgres_dir: Path, name: str) -> None:
    rng = seeded_random()
    for number in range(LONG_ROUNDS):
        folder = postgres_dir / f"data{number}"
        interrupt(folder, COMMANDS[name], random_signals(rng), rng.uniform(0, START_S), creates=True)
        assert_next_start_works(folder)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS_THAT_READ)
def test_a_signal_to_a_command_that_reads_leaves_no_process(postgres_dir: Path, name: str) -> None:
    """It starts the PostgreSQL of a data directory, and stops it."""
    rng = seeded_random()
    folder = postgres_dir / "data"
    assert_next_start_works(folder)
    for _ in range(LONG_ROUNDS):
        interrupt(folder, COMMANDS_THAT_READ[name], random_signals(rng), rng.uniform(0, READ_S), creates=False)
    assert_next_start_works(folder)
