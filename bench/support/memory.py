"""How much memory processes had at their most, looked at again and again while they run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

LOOK_S = 0.02


@dataclass
class Peak:
    """MiB: of the largest process of each kind. PostgreSQL's without what its processes share."""

    process_mib: float = 0.0
    backend_mib: float = 0.0

    def shown(self) -> str:
        """For a line of the report."""
        return f"peak memory {self.process_mib:,.0f} MiB, of a PostgreSQL backend {self.backend_mib:,.0f} MiB"


@contextmanager
def watched(processes: Callable[[], list[psutil.Process]], postmaster: int) -> Iterator[Peak]:
    """Watches them as long as the context."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            peak.process_mib = max([peak.process_mib, *(_own(each, shared=True) for each in processes())])
            backends = psutil.Process(postmaster).children()
            peak.backend_mib = max([peak.backend_mib, *(_own(each, shared=False) for each in backends)])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def resident_mib(pid: int) -> float:
    """Of a process and of all that it started."""
    root = psutil.Process(pid)
    return sum(_own(each, shared=True) for each in (root, *root.children(recursive=True)))


@contextmanager
def followed(pid: int, look_s: float = 0.1) -> Iterator[list[float]]:
    """Its resident MiB at every look, as long as the context."""
    seen, ended = [resident_mib(pid)], threading.Event()

    def look() -> None:
        while not ended.wait(look_s):
            seen.append(resident_mib(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _own(process: psutil.Process, *, shared: bool) -> float:
    try:
        held = process.memory_info()
    except psutil.NoSuchProcess:  # it ended just now
        return 0.0
    return (held.rss - (0 if shared else getattr(held, "shared", 0))) / 2**20
