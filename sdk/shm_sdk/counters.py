"""Counters and gauges that add up over all processes of an install.

Each process keeps its numbers in a small file of its own. An increment is written at once, so it survives the death of
the process. The sender adds the files up. It adds the counts of ended processes to the state and removes their files.

The file is not mapped into memory. A write to mapped memory kills the process (SIGBUS) where another program has
truncated the file, the disk is full or the disk fails, and no check beforehand excludes that. `pwrite` fails instead,
for three microseconds more: an increment takes five, and took less than two.
"""

import logging
import math
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shm_sdk import forking
from shm_sdk.diagnostics import warn_once
from shm_sdk.files import open_regular_file
from shm_sdk.locks import FileLock, is_abandoned
from shm_sdk.state import State

FOLDER = "counters"
TEMPORARY_SUFFIX = ".new"
RECORD = struct.Struct("=dd B B")  # value, time of the last change, kind, length of the key
NUMBER = struct.Struct("=dd")  # the part of a record that changes
RECORD_BYTES = 256
MAX_KEY_BYTES = RECORD_BYTES - RECORD.size
MAX_RECORDS = 128
FILE_BYTES = RECORD_BYTES * MAX_RECORDS
RETRY_S = 60.0  # where no file can be written; the disk may be repaired

MAX_NUMBER = 2.0**1000

COUNT, SUM, LATEST, PER_PROCESS = KINDS = 1, 2, 3, 4

log = logging.getLogger("shm_sdk")


class Sample(NamedTuple):
    """One number of one process."""

    name: str
    kind: int
    value: float
    changed_at: float


class Counters:
    """The numbers of one client in this process.

    `add` and `set` may be called by every thread and in signal handlers, and wait for nothing: they append to a queue,
    and whichever caller finds the lock free writes the queue out.
    """

    def __init__(self, find_directory: Callable[[], Path | None]) -> None:
        """`find_directory` returns the shared directory, None as long as nothing may be stored."""
        self._find_directory = find_directory
        self._queue: deque[tuple[str, int, float]] = deque()
        self._writing = threading.Lock()  # acquired without waiting only
        self._values: dict[tuple[str, int], float] = {}
        self._file: _CounterFile | None = None
        self._retry_at = 0.0  # monotonic time before which no file is tried; the numbers stay in memory
        self._must_restore = False  # the file may differ from the numbers
        self._pid = os.getpid()
        forking.register(self)

    def change(self, name: str, kind: int, number: float) -> None:
        """Adds to a counter, or sets a gauge. Never raises."""
        if self._pid != os.getpid():
            self.after_fork()
        self._queue.append((name, kind, number))
        self.write()

    def refresh(self) -> None:
        """Writes all numbers again, as another program may have damaged the file. Called before a report."""
        self._must_restore = self._file is not None
        self.write()

    def write(self) -> None:
        """Writes the queue out, unless another thread does."""
        while self._has_work and (writing := self._writing).acquire(blocking=False):
            try:
                self._write_queue()
            except Exception as error:  # counting must not fail
                log.debug("counters are not stored: %s", type(error).__name__)
            finally:
                writing.release()  # in a child that a signal handler forked meanwhile, `_writing` is another one
            if self._needs_file:
                return  # nothing may be stored yet

    @property
    def _has_work(self) -> bool:
        return bool(self._queue) or self._must_restore or self._needs_file

    @property
    def _needs_file(self) -> bool:
        return bool(self._values) and self._file is None and time.monotonic() >= self._retry_at

    def samples(self) -> list[Sample]:
        """The numbers of this process that are in no file."""
        if self._file is not None:
            return []
        return [Sample(name, kind, value, time.time()) for (name, kind), value in list(self._values.items())]

    def after_fork(self) -> None:
        """Starts at zero, in a child: the parent's file has the parent's counts."""
        self._pid = os.getpid()
        self._queue = deque()
        self._writing = threading.Lock()
        self._values = {}
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write_queue(self) -> None:
        self._check_file()
        changed = self._apply_queue()
        if self._needs_file and (directory := self._find_directory()) is not None:
            self._open_file(directory)
        must_restore, self._must_restore = self._must_restore, False
        if self._file is None:
            return
        for (name, kind), value in changed.items():
            self._file.write(name, kind, value)
        if must_restore:
            self._file.restore()

    def _apply_queue(self) -> dict[tuple[str, int], float]:
        """Applies the queue to the numbers. Returns those that have changed."""
        changed: dict[tuple[str, int], float] = {}
        while self._queue:
            name, kind, number = self._queue.popleft()
            key = name, kind
            if key not in self._values and len(self._values) >= MAX_RECORDS:
                warn_once("records", "telemetry counters beyond %d in one process are left out", MAX_RECORDS)
                continue  # a mistake, such as an ID in the name
            self._values[key] = changed[key] = self._values.get(key, 0.0) + number if kind == COUNT else number
        return changed

    def _check_file(self) -> None:
        """Gives up a file that is not this process's any more."""
        if self._file is None:
            return
        status = self._file.find_status()
        if status is None:  # the host has closed all files, as a daemon does: that of an ended process has the counts
            self._file = None
            self._values = {key: value for key, value in self._values.items() if key[1] != COUNT}
        elif not status.st_nlink:
            self._file.close()
            self._file = None
            if self._find_directory() is None:  # the user has erased this install
                self._values = {}
        elif status.st_size != FILE_BYTES:
            self._must_restore = True

    def _open_file(self, directory: Path) -> None:
        try:
            self._file = _CounterFile(directory / FOLDER)
        except (OSError, ValueError) as error:
            self._retry_at = time.monotonic() + RETRY_S
            warn_once(f"counters {directory}", "telemetry counters stay in memory and end with this process: %s", error)
            return
        for (name, kind), value in self._values.items():
            self._file.write(name, kind, value)


class Counter:
    """A number that only grows, over all processes and restarts of the install."""

    def __init__(self, counters: "Counters", name: str) -> None:
        self._counters = counters
        self._name = name

    def inc(self, amount: float = 1) -> None:
        """Adds to it. Never raises, and waits for nothing. A negative amount is ignored."""
        number = to_number(amount)
        if number is not None and number >= 0:
            self._counters.change(self._name, COUNT, number)


class Gauge:
    """A number that goes up and down."""

    def __init__(self, counters: "Counters", name: str, kind: int) -> None:
        self._counters = counters
        self._name = name
        self._kind = kind

    def set(self, value: float) -> None:
        """Sets it. Never raises, and waits for nothing."""
        number = to_number(value)
        if number is not None:
            self._counters.change(self._name, self._kind, number)


def to_number(value: object) -> float | None:
    """A finite number, None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except Exception:  # an object of the host that raises when it is read
        return None
    return number if abs(number) < MAX_NUMBER else None


class _CounterFile:
    """The file of this process, locked as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        temporary = path.with_name(f"{path.name}{TEMPORARY_SUFFIX}")
        self._content = bytearray(FILE_BYTES)
        self._offsets: dict[tuple[str, int], int] = {}
        self._lock = FileLock(temporary)
        self._lock.acquire()
        try:
            self.restore()  # zeros on the disk, and not a hole that may not fit later
            temporary.rename(path)  # from now on the sender sees it, and finds it locked
        except BaseException:
            temporary.unlink(missing_ok=True)
            self._lock.release()
            raise

    def find_status(self) -> os.stat_result | None:
        """The properties of the open file, None if it was closed."""
        return self._lock.find_status()

    def write(self, name: str, kind: int, value: float) -> None:
        """Writes one number. Raises OSError; then `restore` writes it."""
        offset = self._offsets.get((name, kind))
        if offset is None:
            key = name.encode("utf-8", "replace")[:MAX_KEY_BYTES]
            offset = self._offsets[name, kind] = len(self._offsets) * RECORD_BYTES
            RECORD.pack_into(self._content, offset, value, time.time(), kind, len(key))
            key_offset = offset + RECORD.size
            self._content[key_offset : key_offset + len(key)] = key
            self._write(key_offset, len(key))
            self._write(offset, RECORD.size)  # last: a reader ignores a record without a length
            return
        NUMBER.pack_into(self._content, offset, value, time.time() if kind != COUNT else 0.0)
        self._write(offset, NUMBER.size)

    def restore(self) -> None:
        """Writes the whole file. Raises OSError."""
        os.ftruncate(self._lock.descriptor, FILE_BYTES)
        self._write(0, FILE_BYTES)

    def close(self) -> None:
        """Closes it, without unlocking it for the process that owns it."""
        self._lock.after_fork()

    def _write(self, offset: int, count: int) -> None:
        os.pwrite(self._lock.descriptor, memoryview(self._content)[offset : offset + count], offset)


def sum_up(directory: Path | None, state: State, own: list[Sample]) -> dict[str, float]:
    """The install's numbers: of ended processes, of all files, and of this process where it has no file."""
    counts, sums, latest = dict(state.counts), dict[str, float](), dict(state.latest)
    samples = list(own)
    if directory is not None:
        for path in _counter_files(directory):
            if path.name not in state.merged:
                is_ended = is_abandoned(path)
                samples += [entry for entry in _read(path) or () if not is_ended or entry.kind in (COUNT, LATEST)]
    for sample in samples:
        _add(sample, counts, latest, sums)
    return {**{name: pair[0] for name, pair in latest.items()}, **sums, **counts}


def merge_ended(directory: Path, state: State) -> list[Path]:
    """Adds the counts of ended processes to the state. The caller saves the state and then removes the files.

    A file that could not be removed is listed in the state, so that it is not counted again.
    """
    ended: list[Path] = []
    for path in _counter_files(directory):
        if is_abandoned(path):
            ended.append(path)
            if path.name not in state.merged:
                samples = _read(path)
                if samples is None:
                    log.warning("the telemetry counts of an ended process are lost: its file is damaged")
                for sample in samples or ():
                    _add(sample, state.counts, state.latest, {})
    state.merged = [path.name for path in ended]
    return ended


def _add(sample: Sample, counts: dict[str, float], latest: dict[str, list[float]], sums: dict[str, float]) -> None:
    if sample.kind == COUNT:
        counts[sample.name] = counts.get(sample.name, 0.0) + sample.value
    elif sample.kind == LATEST:
        if sample.changed_at >= latest.get(sample.name, [0.0, 0.0])[1]:
            latest[sample.name] = [sample.value, sample.changed_at]
    else:
        sums[sample.name] = sums.get(sample.name, 0.0) + sample.value


def _counter_files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in (directory / FOLDER).iterdir() if not path.name.endswith(TEMPORARY_SUFFIX))
    except OSError:
        return []


def _read(path: Path) -> list[Sample] | None:
    """The numbers in a file, None if it is damaged."""
    try:
        with open_regular_file(path) as file:
            content = file.read(FILE_BYTES + 1)
    except OSError:
        return None
    return list(_parse(content)) if len(content) == FILE_BYTES else None


def _parse(content: bytes) -> Iterator[Sample]:
    """The records of a file. A record that no process writes, of a damaged file, is skipped."""
    for offset in range(0, FILE_BYTES, RECORD_BYTES):
        value, changed_at, kind, length = RECORD.unpack_from(content, offset)
        if not length:
            return
        if kind not in KINDS or length > MAX_KEY_BYTES or not math.isfinite(value) or not math.isfinite(changed_at):
            continue
        start = offset + RECORD.size
        yield Sample(content[start : start + length].decode("utf-8", "replace"), kind, value, changed_at)
