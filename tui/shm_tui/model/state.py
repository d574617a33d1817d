"""The state of an instance: a shape before it is a colour, and a word before either."""

from datetime import datetime
from enum import Enum

from shm_client import Instance


class State(Enum):
    """Name, glyph, style and meaning; the order is the one they sort in."""

    ACTIVE = ("active", "●", "good", "active and counted")
    UNCOUNTED = ("uncounted", "◐", "soft", "active, not counted: dev, ci, ephemeral")
    SILENT = ("silent", "○", "dim", "not seen for longer than the active window")
    PENDING = ("pending", "…", "warn", "has not proved its key, or waits for approval")
    REVOKED = ("revoked", "✕", "bad", "revoked for good")

    def __init__(self, word: str, glyph: str, style: str, meaning: str) -> None:
        self.word = word
        self.glyph = glyph
        self.style = style
        self.meaning = meaning


RANK = {state: rank for rank, state in enumerate(State)}
BY_WORD = {state.word: state for state in State}


def state_of(instance: Instance, now: datetime, active_window_s: int) -> State:
    """What `instance` is at the moment `now`."""
    if instance.status == "revoked":
        return State.REVOKED
    if instance.status == "pending":
        return State.PENDING
    seen = instance.last_seen_at
    if seen is None or (now - seen).total_seconds() > active_window_s:
        return State.SILENT
    return State.ACTIVE if instance.counted else State.UNCOUNTED
