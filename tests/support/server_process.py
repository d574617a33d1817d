"""`shm serve` as a process of its own, to be talked to over its socket, ended and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from random import randrange
from threading import Lock

import httpx
import psutil

from tests.support import plain_http

START_LIMIT_S = 60
END_LIMIT_S = 30

# Tests send from one address, and faster than any honest install; those of the limits say otherwise.
FOR_TESTS = {"SHM_START_PATIENCE": "30s", "SHM_RATELIMIT_ENABLED": "false"}

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(20_000, 32_768)[WORKER::WORKERS]  # below those that the system gives away by itself

_next_port = Lock()
_ports = islice(cycle(PORTS), randrange(len(PORTS)), None)


class ServerProcess:
    """A server on a port that it keeps over restarts."""

    def __init__(
        self,
        data_dir: Path,
        environment: dict[str, str],
        arguments: tuple[str, ...] = (),
        before: tuple[str, ...] = (),  # a command that runs ours
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = data_dir.with_suffix(".log")
        self._environment = environment
        self._arguments = arguments
        self._before = before
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHM_")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._before,
                    *(sys.executable, "-m", "shm.cli", "serve", "--port", str(self.port)),
                    *("--data-dir", str(self.data_dir), *self._arguments),
                ],
                env={**environment, **FOR_TESTS, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self.is_ready():
            assert self._process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.log}"
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process's ID."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process that was started last is still there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has logged since its first start."""
        return self.log_file.read_text()

    @property
    def admin_token(self) -> str:
        """The token that the first start made."""
        return (self.data_dir / "admin.token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """What an admin's request carries."""
        return {"Authorization": f"Bearer {self.admin_token}"}

    def get(self, path: str) -> httpx.Response:
        """GET below `/api/v1/admin/`, as the admin; must succeed."""
        return plain_http.get(f"{self.url}/api/v1/admin/{path}", headers=self.headers, timeout=30).raise_for_status()

    def kill(self) -> None:
        """kill -9, of it and of the processes that it started."""
        if self._process is None:
            return
        for child in psutil.Process(self.pid).children(recursive=True):
            child.kill()
        self.kill_parent_only()

    def kill_parent_only(self) -> None:
        """kill -9, of nothing but the process that was started."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(END_LIMIT_S)
        self._process = None

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """SIGTERM, or another; returns the exit status, None if it did not run."""
        if self._process is None:
            return None
        self._process.send_signal(number)
        try:
            return self._process.wait(END_LIMIT_S)
        finally:
            self._process.kill()
            self._process = None

    def is_ready(self) -> bool:
        """Whether it answers, and its database does."""
        try:
            return plain_http.get(f"{self.url}/api/v1/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def free_port() -> int:
    """A TCP port that nobody listens on; not one of those that the system gives to whoever connects."""
    while True:
        with _next_port:
            port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
