"""The no-op server as processes on one port, as the server under test has workers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import psutil

from bench.support.machine import cpu_seconds
from bench.support.processes import free_port, python_process, wait_until

MODULE = "bench.intake.noop_server"


@dataclass(frozen=True, slots=True)
class NoopServer:
    """A no-op server that is ready."""

    url: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        return sum(cpu_seconds(pid) for pid in self.pids)


@contextmanager
def run_noop_server(processes: int) -> Iterator[NoopServer]:
    """That many processes on one port, ended with the context."""
    port = free_port()
    with ExitStack() as stack:
        started = [stack.enter_context(python_process(MODULE, str(port))) for _ in range(processes)]
        for process in started:
            wait_until(partial(_listens, process.pid, port), process, MODULE)
        yield NoopServer(f"http://127.0.0.1:{port}", tuple(process.pid for process in started))


def _listens(pid: int, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in psutil.Process(pid).net_connections("tcp")
    )
