"""`shm serve` as a process of its own: tests send requests to its socket, terminate it and kill it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import cycle, islice
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import randrange
from threading import Lock

import httpx
import psutil

from tests.support import plain_http
from tests.support.preloaded_command import exit_status, start_preloaded, wait_for_exit

START_LIMIT_S = 60
END_LIMIT_S = 60

# Tests send more requests from one address than any install, except those of the rate limits. Each connection of the
# pool is a process that PostgreSQL starts.
DEFAULT_ENVIRONMENT = {"SHM_START_PATIENCE": "30s", "SHM_RATELIMIT_ENABLED": "false", "SHM_DB_POOL": "3"}

# Rate limits whose budgets do not refill during a test, however slow the machine is.
RATE_LIMITS = {
    "SHM_RATELIMIT_ENABLED": "true",
    **{f"SHM_RATELIMIT_{kind}_PERIOD": "1d" for kind in ("REGISTER", "SNAPSHOT", "FAILED", "ADMIN")},
    "SHM_RATELIMIT_UNAUTHENTICATED_PERIOD": "0",  # no limit: its answers are delayed
}

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(20_000, 32_768)[WORKER::WORKERS]  # below the ports that the system assigns itself

_next_port = Lock()
_ports = islice(cycle(PORTS), randrange(len(PORTS)), None)


class _ExecutedProcess:
    """A process that runs the command in a new interpreter."""

    def __init__(self, command: list[str], environment: dict[str, str], log_file: Path) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Waits for its end and returns the exit status. Raises TimeoutError."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from None


class _ForkedProcess:
    """A process that a fork server has forked."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log_file: Path) -> None:
        self._process: ForkServerProcess = start_preloaded(arguments, environment, log_file)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return exit_status(self._process)

    def wait(self, timeout_s: float) -> int:
        """Waits for its end and returns the exit status. Raises TimeoutError."""
        return wait_for_exit(self._process, timeout_s)


class ServerProcess:
    """A server that keeps its port over restarts.

    It is forked by a process that has imported the server, which takes a quarter of the CPU time. It is executed in an
    interpreter of its own if `executed` is true, if another command runs it, or if the environment has a variable that
    Python reads at its start.
    """

    def __init__(
        self,
        data_dir: Path,
        environment: dict[str, str],
        arguments: tuple[str, ...] = (),
        before: tuple[str, ...] = (),  # the command that runs `shm`
        *,
        executed: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = data_dir.with_suffix(".log")
        self._forgotten = 0  # characters of the log
        self._environment = environment
        self._arguments = arguments
        self._before = before
        self._executed = executed or bool(before) or any(name.startswith("PYTHON") for name in environment)
        self._process: _ExecutedProcess | _ForkedProcess | None = None

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHM_")}
        environment = {**inherited, **DEFAULT_ENVIRONMENT, **self._environment}
        self.log_file.touch()
        arguments = ["serve", "--port", str(self.port), "--data-dir", str(self.data_dir), *self._arguments]
        if self._executed:
            command = [*self._before, sys.executable, "-m", "shm.cli", *arguments]
            self._process = _ExecutedProcess(command, environment, self.log_file)
        else:
            self._process = _ForkedProcess(arguments, environment, self.log_file)
        deadline = time.monotonic() + START_LIMIT_S
        while not (self._listens() and self.is_ready()):
            assert self._process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.log}"
            time.sleep(0.02)

    def _listens(self) -> bool:
        """Whether its port accepts a connection. Until then, this costs a hundredth of a request's CPU time."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def pid(self) -> int:
        """The process's ID."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process that was started last still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The log since its first start, or since it was forgotten."""
        return self.log_file.read_text()[self._forgotten :]

    def forget_log(self) -> None:
        """Leaves what it has logged up to now out of `log`."""
        self._forgotten = len(self.log_file.read_text())

    @property
    def admin_token(self) -> str:
        """The token that its first start created."""
        return (self.data_dir / "admin.token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an admin's request."""
        return {"Authorization": f"Bearer {self.admin_token}"}

    def get(self, path: str) -> httpx.Response:
        """GET below `/api/v1/admin/`, as the admin. Raises httpx.HTTPStatusError for a refusal."""
        return plain_http.get(f"{self.url}/api/v1/admin/{path}", headers=self.headers, timeout=60).raise_for_status()

    def kill(self) -> None:
        """Sends SIGKILL to it and to the processes that it started."""
        if self._process is None:
            return
        for child in psutil.Process(self.pid).children(recursive=True):
            child.kill()
        self.kill_parent_only()

    def kill_parent_only(self) -> None:
        """Sends SIGKILL to the process that was started and to no other."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(END_LIMIT_S)
        self._process = None

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Sends a signal, waits for its end and returns the exit status; None if it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            os.kill(process.pid, number)
        try:
            return process.wait(END_LIMIT_S)
        except TimeoutError:
            os.kill(process.pid, signal.SIGKILL)
            raise

    def is_ready(self) -> bool:
        """Whether it and its database respond."""
        try:
            return plain_http.get(f"{self.url}/api/v1/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def free_port() -> int:
    """A TCP port that no process listens on, and that the system does not assign to outgoing connections."""
    while True:
        with _next_port:
            port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
