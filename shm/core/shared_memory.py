"""Shared memory for metrics: each worker of a server writes to a slot of its own, and all workers read all slots.

The memory is an anonymous mapping that is made before the first worker is forked, so it ends with the server. The
replacement of a worker takes over its slot and continues its counts: a sum over all slots never decreases.
"""

import logging
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from shm.core.logs import RateLimitedLogger

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

# Names and labels come from the code, never from a request, so there are some hundreds of series. A slot has room for
# several times as many. Pages that were never written to use no memory.
HEADER_BYTES = 8
NAMES_BYTES = 256 * 1024
CELLS = 16 * 1024
MAX_SERIES_CELLS = 64  # in one series
CELL_BYTES = 8
SLOT_BYTES = HEADER_BYTES + NAMES_BYTES + (CELLS + MAX_SERIES_CELLS) * CELL_BYTES


class _Name(msgspec.Struct, array_like=True, frozen=True):
    metric: str
    labels: tuple[str, ...]
    cells: int


_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(_Name).decode


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one metric with these labels."""

    metric: str
    labels: tuple[str, ...]
    cells: list[float]


class WorkerSlot:
    """The memory of one worker: cells, and the names of their series, in the order of allocation."""

    def __init__(self, memory: memoryview) -> None:
        self._length = memory[:HEADER_BYTES].cast("q")
        self._names = memory[HEADER_BYTES : HEADER_BYTES + NAMES_BYTES]
        self.cells = memory[HEADER_BYTES + NAMES_BYTES :].cast("d")
        self._used = 0
        self._allocated: dict[tuple[str, tuple[str, ...]], int] = {}
        for series in self.series():
            self._allocated[series.metric, series.labels] = self._used
            self._used += len(series.cells)

    def allocate(self, metric: str, labels: tuple[str, ...], cells: int = 1) -> int:
        """The index of the first cell of a series; of the same cells when it is called again.

        If the slot is full, returns cells that are not exported, because metrics must not make a request fail.
        """
        if (metric, labels) in self._allocated:
            return self._allocated[metric, labels]
        name = _encoder.encode(_Name(metric, labels, cells)) + b"\n"
        length = self._length[0]
        if length + len(name) > NAMES_BYTES or self._used + cells > CELLS:
            rate_limited.warning("the shared memory for metrics is full", metric)
            return CELLS
        self._names[length : length + len(name)] = name
        self._length[0] = length + len(name)  # last, so that a worker that is killed before has allocated nothing
        first = self._allocated[metric, labels] = self._used
        self._used += cells
        return first

    def series(self) -> Iterator[Series]:
        """The current values of all series."""
        first = 0
        for line in bytes(self._names[: self._length[0]]).splitlines():
            name = _decode(line)
            yield Series(name.metric, name.labels, list(self.cells[first : first + name.cells]))
            first += name.cells


class WorkerSlots:
    """The memory of all workers, with a slot for each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = memoryview(mmap.mmap(-1, count * SLOT_BYTES))

    def slot(self, index: int) -> WorkerSlot:
        """The slot of a worker. Only that worker writes to it; every worker may read it."""
        return WorkerSlot(self._memory[index * SLOT_BYTES : (index + 1) * SLOT_BYTES])
