"""What an install knows about its reports, in one small file that all its processes read.

Only the process that holds the report lock writes it. A file that cannot be read counts as an empty one.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from shm_sdk.files import write_atomically

FILE_NAME = "state.json"
MAX_FILE_BYTES = 1024 * 1024


@dataclass
class State:
    """Times are Unix times. An empty value means: not known."""

    instance_id: str = ""  # the identity that the rest is about
    registration: str = ""  # a hash of what the server was told and has accepted
    sequence: int = 0  # of the last snapshot
    last_sent_at: float = 0.0
    next_report_at: float = 0.0
    quiet_until: float = 0.0  # the end of the server's Retry-After
    last_result: str = ""
    repetitions: int = 0  # outcomes of the same kind in a row
    conflicts: int = 0  # snapshots with a sequence that another process had used
    clean_reports: int = 0  # since the last conflict
    has_replaced_identity: bool = False  # this install was a copy of another, and is one of its own since then
    counts: dict[str, float] = field(default_factory=dict)  # of ended processes
    latest: dict[str, list[float]] = field(default_factory=dict)  # gauges of ended processes: the value and its time
    merged: list[str] = field(default_factory=list)  # files whose counts are in `counts` already

    def adopt(self, instance_id: str) -> None:
        """Forgets what belongs to another identity."""
        if self.instance_id != instance_id:
            self.instance_id, self.registration, self.sequence = instance_id, "", 0


class StateFile:
    """The file in the shared directory. Without a directory the state lives in memory."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / FILE_NAME if directory else None
        self._in_memory = State()

    def load(self) -> State:
        """The stored state."""
        if self._path is None:
            return self._in_memory
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return State()
        return _parse(document) if isinstance(document, dict) else State()

    def save(self, state: State) -> None:
        """Replaces the file. Raises OSError."""
        self._in_memory = state
        if self._path is not None:
            write_atomically(json.dumps(asdict(state), indent=1).encode() + b"\n", self._path, is_durable=False)


def _parse(document: dict[str, Any]) -> State:
    """The state of a document; a member of another type counts as unknown."""
    state = State()
    for member in fields(State):
        value, default = document.get(member.name), getattr(state, member.name)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is type(default):
            setattr(state, member.name, value)
    counts, latest, merged = document.get("counts"), document.get("latest"), document.get("merged")
    state.counts, state.latest, state.merged = {}, {}, []
    if isinstance(counts, dict):
        state.counts = {name: value for name, value in counts.items() if isinstance(value, int | float)}
    if isinstance(latest, dict):
        state.latest = {name: pair for name, pair in latest.items() if _is_pair(pair)}
    if isinstance(merged, list):
        state.merged = [name for name in merged if isinstance(name, str)]
    return state


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(number, int | float) for number in value)
