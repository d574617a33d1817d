"""`shm demo`: runs a server, a simulated fleet and the console, and stops all of them at the end.

Each is a separate process, which also ends when this one is killed. The data stays in the data directory.
"""

import argparse
import importlib.util
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from shm.auth.token_file import TOKEN_FILE
from shm.core.default_data_dir import default_data_dir
from shm.core.errors import ConfigurationError
from shm.core.signals import exit_if_signalled, exit_on_signals, interruptible

HELP = "Open the console on a fleet of simulated installs. The server and the fleet stop when the console ends."

INSTANCES = 160
RATE = 12.0  # reports a second: visible changes that are still readable
START_TIMEOUT_S = 90.0  # for the server with its database, on a slow machine
HISTORY_TIMEOUT_S = 300.0  # for some ten thousand snapshots, on a slow machine
STARTED_AT_FILE = "started_at"  # the Unix time of the first start, once the history is stored
REPORTS_TIMEOUT_S = 60.0  # for the first report of each install
# For the server to drain and to stop its PostgreSQL, which would continue to run if the server were killed.
TERMINATE_TIMEOUT_S = 120.0
POLL_INTERVAL_S = 0.1
LOG_LINES = 12  # of a failed process, in the error message


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `shm demo`."""
    parser.add_argument("--instances", type=int, default=INSTANCES, help=f"Simulated installs. Default: {INSTANCES}.")
    parser.add_argument("--rate", type=float, default=RATE, help=f"Reports a second. Default: {RATE:g}.")
    parser.add_argument("--server", help="Report to this server instead of starting one. The console needs SHM_TOKEN.")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(default_data_dir()) / "demo",
        help="Directory of the database, the identities and the logs. Default: %(default)s.",
    )
    parser.add_argument("--view", metavar="PLACE", default="", help="The console's first place, such as fleet.")
    parser.add_argument("--screenshot", type=Path, metavar="FILE.svg", help="Save a picture of the console and exit.")


def run(args: argparse.Namespace) -> int:
    """Starts the server and the fleet, opens the console (without a terminal: prints its tables), and stops them."""
    if importlib.util.find_spec("shm_sdk") is None:
        raise ConfigurationError(
            "The demo's simulated installs report through the Python SDK, which is not installed. "
            "In a checkout of SHM: pip install ./sdk"
        )
    if args.instances < 1 or args.rate <= 0:
        raise ConfigurationError("--instances and --rate must be above zero.")
    folder = args.data_dir.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with exit_on_signals(), ExitStack() as stack:
        server = args.server or stack.enter_context(_server(folder))
        token = _token(args.server, folder)
        started_at = _prepare_fleet(folder, args.instances, with_history=args.server is None)
        fleet = stack.enter_context(_fleet(folder, server, args.instances, args.rate, started_at))
        _print(f"{args.instances} simulated installs of three applications report to {server} through the SDK")
        _await_reports(fleet, folder / "fleet.log")
        status = _console(server, token, args.view, args.screenshot)
    _print(f"ended; the data remains in {folder}")
    return status


def _token(server: str | None, folder: Path) -> str:
    """The token of the demo's own server, from its data directory; that of another server, from SHM_TOKEN."""
    if server is None:
        return (folder / TOKEN_FILE).read_text().strip()
    if not os.environ.get("SHM_TOKEN"):
        raise ConfigurationError("The console needs a token for another server: set SHM_TOKEN.")
    return os.environ["SHM_TOKEN"]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """`shm serve` on a free port; yields its URL once it is ready."""
    url = f"http://127.0.0.1:{_free_port()}"
    _print(f"starting a server with an embedded PostgreSQL in {folder}")
    address = ("--host", "127.0.0.1", "--port", url.rpartition(":")[2])
    unlimited = ("--ratelimit-enabled", "false")  # the fleet has one address, and may report at any rate
    command = ("serve", *address, *unlimited, "--data-dir", str(folder))
    with _process(folder / "server.log", "shm.cli", *command) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url):
            _check_running(process, "The server", folder / "server.log")
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"The server was not ready within {START_TIMEOUT_S:.0f} s: {folder}/server.log"
                )
            exit_if_signalled()
            time.sleep(POLL_INTERVAL_S)
        yield url


def _prepare_fleet(folder: Path, instances: int, *, with_history: bool) -> float:
    """The Unix time of the first start. At that start, the demo's own database gets the fleet's simulated past."""
    file = folder / STARTED_AT_FILE
    if file.exists():
        return float(file.read_text())
    started_at = time.time()
    if with_history:
        _store_history(folder, instances, started_at)
    file.write_text(f"{started_at}\n")
    return started_at


def _store_history(folder: Path, instances: int, started_at: float) -> None:
    _print("storing a simulated history of a year")
    command = ("--data-dir", str(folder), "--fleet", str(folder / "fleet"), "--instances", str(instances))
    log = folder / "history.log"
    with _process(log, "shm.cli.demo.history", *command, "--started-at", str(started_at)) as process, interruptible():
        try:
            status = process.wait(HISTORY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ConfigurationError(f"The history was not stored within {HISTORY_TIMEOUT_S:.0f} s: {log}") from None
    if status != 0:
        raise _ended_unexpectedly("The history", log)


@contextmanager
def _fleet(
    folder: Path, server: str, instances: int, rate: float, started_at: float
) -> Iterator[subprocess.Popen[bytes]]:
    command = ("--server", server, "--instances", str(instances), "--rate", str(rate), "--started-at", str(started_at))
    log, directory = folder / "fleet.log", str(folder / "fleet")
    with _process(log, "shm.cli.demo.fleet", *command, "--data-dir", directory, piped=True) as process:
        yield process


@contextmanager
def _process(log: Path, module: str, *arguments: str, piped: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process in a session of its own, so that Ctrl-C reaches only the console. Ends it with SIGTERM."""
    with log.open("wb") as output, _pipe() as descriptor:
        process = subprocess.Popen(
            _command(descriptor, module, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
            pass_fds=[descriptor],
        )
        try:
            yield process
        finally:
            _terminate(process)


@contextmanager
def _pipe() -> Iterator[int]:
    """A pipe whose other end only this process holds. Yields the descriptor that a child reads the end from."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def _command(descriptor: int, module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "shm.cli.demo.child", str(descriptor), module, *arguments]


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """Sends SIGTERM, and SIGKILL after a timeout."""
    process.terminate()
    try:
        process.wait(TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_reports(fleet: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until the fleet prints that every install has reported once, or for the timeout."""
    assert fleet.stdout is not None  # noqa: S101 - it was started with a pipe
    with interruptible():
        readable, _, _ = select.select([fleet.stdout], [], [], REPORTS_TIMEOUT_S)
        has_ended = readable and not fleet.stdout.readline()
    if has_ended:
        fleet.wait(TERMINATE_TIMEOUT_S)
        _check_running(fleet, "The fleet", log)


def _console(server: str, token: str, view: str, screenshot: Path | None) -> int:
    """Runs the console in this terminal; without a terminal, prints its tables or the view once."""
    arguments = ["console", "--server", server, "--view", view]
    if screenshot is not None:
        arguments += ["--screenshot", str(screenshot)]
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        arguments += ["--once"]
    sys.stdout.flush()
    with _pipe() as descriptor:
        process = subprocess.Popen(
            _command(descriptor, "shm.cli", *arguments),
            env=_environment() | {"SHM_TOKEN": token},
            pass_fds=[descriptor],
        )
        try:
            with interruptible():
                return process.wait()
        finally:
            _terminate(process)  # the console restores the terminal


def _environment() -> dict[str, str]:
    """This process's environment without settings of other servers and settings that switch off the SDK."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SHM_") and name not in ("DATABASE_URL", "PORT", "DO_NOT_TRACK")
    }


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v1/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def _check_running(process: "subprocess.Popen[bytes]", name: str, log: Path) -> None:
    if process.poll() is not None:
        raise _ended_unexpectedly(name, log)


def _ended_unexpectedly(name: str, log: Path) -> ConfigurationError:
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    return ConfigurationError(f"{name} ended unexpectedly:\n{last_lines}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _print(sentence: str) -> None:
    print(f"demo: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
