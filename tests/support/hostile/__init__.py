"""Requests of hostile or broken clients as plain data: the exact bytes and the expected response.

tests/server/test_hostile.py sends `CASES` and checks the responses. `corpus` yields the same bytes for other tests.
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
    """The name of each case and its bytes, for a registered install. Send each on a new connection.

    In some cases the server waits for more data, so close the connection for sending afterwards.
    """
    for case in CASES:
        yield case.name, case.raw(install)
