"""Memory of processes, sampled while they run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

PEAK_INTERVAL_S = 0.02
RESIDENT_INTERVAL_S = 0.1


@dataclass
class PeakMemory:
    """MiB of the largest process of each kind; of a PostgreSQL backend without shared memory."""

    process_mib: float = 0.0
    backend_mib: float = 0.0

    def format(self) -> str:
        """For a line of the report."""
        backend = f", of a PostgreSQL backend {self.backend_mib:,.0f} MiB" if self.backend_mib else ""
        return f"peak memory {self.process_mib:,.0f} MiB{backend}"


@contextmanager
def track_peak(process: psutil.Process, postmaster: int | None) -> Iterator[PeakMemory]:
    """The peak of a process and of PostgreSQL's backends, as long as the context. None: a PostgreSQL elsewhere."""
    peak = PeakMemory()

    def sample() -> None:
        peak.process_mib = max(peak.process_mib, _process_mib(process, shared=True))
        backends = [] if postmaster is None else psutil.Process(postmaster).children()
        peak.backend_mib = max([peak.backend_mib, *(_process_mib(each, shared=False) for each in backends)])

    with _sampling(sample, PEAK_INTERVAL_S):
        yield peak


@contextmanager
def track_resident(pid: int) -> Iterator[list[float]]:
    """The resident MiB of a process and its children in each sample, as long as the context."""
    samples = [resident_mib(pid)]
    with _sampling(lambda: samples.append(resident_mib(pid)), RESIDENT_INTERVAL_S):
        yield samples


def resident_mib(pid: int) -> float:
    """Of a process and all its descendants."""
    root = psutil.Process(pid)
    return sum(_process_mib(each, shared=True) for each in (root, *root.children(recursive=True)))


@contextmanager
def _sampling(sample: Callable[[], None], interval_s: float) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval_s):
            sample()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _process_mib(process: psutil.Process, *, shared: bool) -> float:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:  # it ended between the listing and this call
        return 0.0
    return (memory.rss - (0 if shared else getattr(memory, "shared", 0))) / 2**20
