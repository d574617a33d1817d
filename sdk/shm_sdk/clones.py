"""Notices that another process reports under this identity, and gives this one an identity of its own.

The server compares the sequence numbers of snapshots. One conflict can be a restored backup or a lost state: the
numbers continue above the server's. A second one means that the copy is alive, such as a cloned virtual machine.
"""

import contextlib
import logging

from shm_sdk.identity import Identity
from shm_sdk.state import State
from shm_sdk.transport import Response

MAX_CONFLICTS = 2  # of a backup that was restored there is one
CLEAN_REPORTS = 24  # in a row, after which earlier conflicts do not count any more
MAX_SEQUENCE = 2**62

log = logging.getLogger("shm_sdk")


def check_sequence(response: Response, identity: Identity, state: State) -> bool:
    """Updates the state by the answer to a stored snapshot. Returns whether this install needs another identity."""
    last_sequence = _find_conflict(response)
    if last_sequence is None:
        state.clean_reports += 1
        if state.clean_reports >= CLEAN_REPORTS:
            state.conflicts = 0
        return False
    state.sequence = max(state.sequence, last_sequence)
    state.clean_reports = 0
    state.conflicts += 1
    log.debug("another process has reported under this identity (conflict %d)", state.conflicts)
    return state.conflicts >= MAX_CONFLICTS and not state.has_replaced_identity and identity.path is not None


def replace_identity(identity: Identity, state: State) -> bool:
    """Renames the identity file, at most once for an install: the next report creates a new one."""
    assert identity.path is not None  # noqa: S101  # the caller has checked it
    with contextlib.suppress(OSError):
        identity.path.replace(identity.path.with_name(f"{identity.path.name}.cloned"))
        state.has_replaced_identity = True
        state.conflicts = 0
        log.warning(
            "another process reports under the same identity, so this one is a copy: it reports as a new install from "
            "now on, and the old identity stays with the other"
        )
        return True
    return False


def _find_conflict(response: Response) -> int | None:
    """The server's last sequence number if it reports a conflict, for the snapshot or the last of a backlog."""
    document = response.json_object()
    members = document.get("snapshots")
    if isinstance(members, list):
        document = members[-1] if members and isinstance(members[-1], dict) else {}
    last_sequence = document.get("last_sequence")
    if document.get("sequence_conflict") is not True or type(last_sequence) is not int:  # True is an int too
        return None
    return last_sequence if 0 <= last_sequence < MAX_SEQUENCE else None
