"""The state of an install's reports, in one small file that all its processes read.

Only the process that holds the report lock writes it. A file that cannot be read counts as an empty one, and a member
with a value that the SDK does not write counts as unknown.
"""

import json
import math
from pathlib import Path
from typing import Any

from shm_sdk.diagnostics import warn_once
from shm_sdk.files import open_regular_file, write_atomically

FILE_NAME = "state.json"
MAX_FILE_BYTES = 1024 * 1024
MAX_INTEGER = 2**62  # servers store 64 bits


class State:
    """Times are Unix times. An empty value means: not known. Every attribute is a member of the file."""

    def __init__(self) -> None:
        self.instance_id = ""  # the identity that the rest is about
        self.registration = ""  # a hash of the registration that the server has accepted
        self.sequence = 0  # of the last snapshot
        self.last_sent_at = 0.0
        self.next_report_at = 0.0
        self.quiet_until = 0.0  # the end of the server's Retry-After
        self.last_result = ""
        self.repetitions = 0  # outcomes of the same kind in a row
        self.conflicts = 0  # snapshots with a sequence that another process had used
        self.clean_reports = 0  # since the last conflict
        self.has_replaced_identity = False  # this install was a copy of another, and is one of its own since then
        self.hints: dict[str, dict[str, str]] = {}  # that the processes of this version have declared
        self.hints_version = ""  # of the application
        self.counts: dict[str, float] = {}  # of ended processes
        self.latest: dict[str, list[float]] = {}  # gauges of ended processes: the value and its time
        self.merged: list[str] = []  # files whose counts are in `counts` already

    def ensure_identity(self, instance_id: str) -> None:
        """Discards what belongs to another identity."""
        if self.instance_id != instance_id:
            self.instance_id, self.registration, self.sequence = instance_id, "", 0


class StateFile:
    """The file in the shared directory. Without a directory, or while it cannot be written, the state is in memory."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / FILE_NAME if directory else None
        self._in_memory = State()
        self._is_stored = directory is not None

    def load(self) -> State:
        """The stored state."""
        if self._path is None or not self._is_stored:
            return self._in_memory
        try:
            with open_regular_file(self._path) as file:
                document = json.loads(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            warn_once(f"state {self._path}", "%s is damaged: the counts in it are lost", self._path)
            return State()
        return _parse(document)

    def save(self, state: State) -> None:
        """Replaces the file. Raises OSError."""
        self._in_memory, self._is_stored = state, False
        if self._path is not None:
            write_atomically(json.dumps(vars(state), indent=1).encode() + b"\n", self._path, is_durable=False)
            self._is_stored = True


def _parse(document: dict[str, Any]) -> State:
    """The state of a document."""
    state = State()
    members: dict[str, Any] = vars(state)
    for name, default in list(members.items()):
        value = document.get(name)
        if isinstance(default, float):
            value = _to_float(value)
        if type(value) is type(default) and (not isinstance(value, int) or 0 <= value < MAX_INTEGER):
            members[name] = value
    state.hints = {name: hint for name, hint in members["hints"].items() if isinstance(hint, dict)}
    state.merged = [name for name in members["merged"] if isinstance(name, str)]
    numbers = {name: _to_float(value) for name, value in state.counts.items()}
    state.counts = {name: number for name, number in numbers.items() if number is not None}
    state.latest = {name: pair for name, value in state.latest.items() if (pair := _to_pair(value)) is not None}
    return state


def _to_pair(value: object) -> list[float] | None:
    """Two numbers of the document, None for anything else."""
    numbers = [_to_float(number) for number in value] if isinstance(value, list) else []
    pair = [number for number in numbers if number is not None]
    return pair if len(pair) == len(numbers) == 2 else None


def _to_float(value: object) -> float | None:
    """A finite number of the document, None for anything else. Python reads integers of any size, and Infinity."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
