"""The state of an instance. Each state has a name and a glyph, so that it is readable without colour."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from shm_client import Instance


@dataclass(frozen=True, slots=True)
class Clock:
    """The inputs of ages and states: the server's time, and the active window in seconds."""

    now: datetime
    active_window_s: int


class State(Enum):
    """Label, glyph, style and meaning, in sort order."""

    ACTIVE = ("active", "●", "good", "active and counted")
    UNCOUNTED = ("uncounted", "◐", "soft", "active, not counted: dev, ci, ephemeral")
    SILENT = ("silent", "○", "dim", "not seen for longer than the active window")
    PENDING = ("pending", "…", "warn", "has not proved its key, or waits for approval")
    REVOKED = ("revoked", "✕", "bad", "revoked for good")

    def __init__(self, label: str, glyph: str, style: str, meaning: str) -> None:
        self.label = label
        self.glyph = glyph
        self.style = style
        self.meaning = meaning


SORT_RANK = {state: rank for rank, state in enumerate(State)}
STATES_BY_LABEL = {state.label: state for state in State}


def state_of(instance: Instance, clock: Clock) -> State:
    """The state of `instance` at the time of `clock`."""
    if instance.status == "revoked":
        return State.REVOKED
    if instance.status == "pending":
        return State.PENDING
    seen = instance.last_seen_at
    if seen is None or (clock.now - seen).total_seconds() > clock.active_window_s:
        return State.SILENT
    return State.ACTIVE if instance.counted else State.UNCOUNTED
