"""Numbers that every worker of a server can read: each counts in a place of its own, in memory that all of them share.

The memory is made before the first worker and belongs to no file, so it ends with the server. The place of a worker
that died goes to its replacement, which counts on from what stands there: no sum over the places ever falls.
"""

import logging
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from shm.core.logs import RateLimitedLogger

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

# Names and labels come from the code, never from a request, so there are some hundreds of series: this is room for
# several times as many. Pages that nobody has written to cost no memory.
HEADER_BYTES = 8
NAMES_BYTES = 256 * 1024
CELLS = 16 * 1024
MAX_SERIES_CELLS = 64  # cells of one series
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
    """What stands in the cells of one metric with these labels."""

    metric: str
    labels: tuple[str, ...]
    cells: list[float]


class WorkerSlot:
    """Where one worker counts: cells, and the names of the series that they belong to, in the order of their claims."""

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
        """The first cell of a series, which is its own from now on; the same one when it is claimed again.

        Where there is no room left, cells that nobody reads: what is counted must not end what it counts.
        """
        if (metric, labels) in self._allocated:
            return self._allocated[metric, labels]
        name = _encoder.encode(_Name(metric, labels, cells)) + b"\n"
        length = self._length[0]
        if length + len(name) > NAMES_BYTES or self._used + cells > CELLS:
            rate_limited.warning("there is no room to count everything", metric)
            return CELLS
        self._names[length : length + len(name)] = name
        self._length[0] = length + len(name)  # last: a worker that is killed in between has claimed nothing
        first = self._allocated[metric, labels] = self._used
        self._used += cells
        return first

    def series(self) -> Iterator[Series]:
        """Everything that is counted here."""
        first = 0
        for line in bytes(self._names[: self._length[0]]).splitlines():
            name = _decode(line)
            yield Series(name.metric, name.labels, list(self.cells[first : first + name.cells]))
            first += name.cells


class WorkerSlots:
    """The memory of all workers, a place for each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = memoryview(mmap.mmap(-1, count * SLOT_BYTES))

    def slot(self, index: int) -> WorkerSlot:
        """One of them. It has a single writer; anybody may read it."""
        return WorkerSlot(self._memory[index * SLOT_BYTES : (index + 1) * SLOT_BYTES])
