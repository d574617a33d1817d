"""What a hostile or broken client may send, as plain data: the exact bytes, and the answer that is due.

`CASES` are held to their answers in tests/server/test_hostile.py. `corpus` is the same bytes for whoever sends them for
a reason of their own.
"""

from collections.abc import Iterator

from tests.support.hostile import actions, backlogs, bodies, identities, messages, timestamps
from tests.support.hostile.case import Case
from tests.support.installs import Install

__all__ = ["CASES", "Case", "corpus"]

CASES: tuple[Case, ...] = (
    *bodies.CASES,
    *backlogs.CASES,
    *timestamps.CASES,
    *identities.CASES,
    *actions.CASES,
    *messages.CASES,
)


def corpus(install: Install) -> Iterator[tuple[str, bytes]]:
    """Each case's name and the bytes to send on a connection of its own, for an install that is registered.

    Some wait for more than they send, so whoever sends them closes their side afterwards.
    """
    for case in CASES:
        yield case.name, case.raw(install)
