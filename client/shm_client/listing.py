"""A list that is read page by page while the feed already runs: what it changes, and by when it is through.

What reports meanwhile may move from a page yet to be read to one that was. The feed tells of it, so a list is through
only when the feed has come as far as its last page, or has been silent for so long that it has nothing to say about
what came before; and what the list did not name is gone only then.
"""

import asyncio
from collections.abc import Iterator

from .changes import Change, Listed, Put, Removed
from .known import Known
from .model import Page

# Seconds after the feed has come as far as the list, until it has told what moved meanwhile: what changes again and
# again is told as it is last, behind what changed before.
QUIET = 1.0
SILENCE = 5.0  # seconds without a word that mean the same: what changed last may concern nobody here


class Listing:
    """The list that was begun last."""

    def __init__(self, known: Known) -> None:
        self.next: str | None = None  # the page behind those that were taken
        self._known = known
        self._taken = 0  # instances so far
        self._ends_at: int | None = None  # the cursor that the feed has to reach, once all pages were taken
        self._settles_at: float | None = None  # the loop's time, once the feed has reached it

    def begin(self, page: Page) -> Iterator[Change]:
        """A list begins with this page; whatever is known has to be named anew."""
        self._known.begin()
        self._taken = 0
        self._ends_at = self._settles_at = None
        yield from self.take(page)
        if self.next is not None or self._ends_at is not None:
            yield Listed(complete=False)

    def take(self, page: Page) -> Iterator[Change]:
        """The page that was next."""
        for instance in page.instances:
            if self._known.put(instance, page.cursor):
                yield Put(instance, told=False)
        self._taken += len(page.instances)
        newest = self._known.newest
        self.next = page.next if newest is None or self._taken < newest else None
        if self.next is None:
            self._ends_at = page.cursor
            if not self._known.missing():
                yield from self.end()

    @property
    def patience(self) -> float | None:
        """Seconds without news after which the list is to be ended; None while that means nothing."""
        if self._ends_at is None:
            return None
        return SILENCE if self._settles_at is None else QUIET

    def told(self, cursor: int) -> Iterator[Change]:
        """The feed has told what changed up to this cursor."""
        if self._ends_at is None or cursor < self._ends_at:
            return
        now = asyncio.get_running_loop().time()
        if self._settles_at is None:
            self._settles_at = now + QUIET
        if now >= self._settles_at or not self._known.missing():
            yield from self.end()

    def end(self) -> Iterator[Change]:
        """The list is through: what neither it nor the feed named is gone. Nothing where there are pages to come."""
        if self._ends_at is None:
            return
        self._ends_at = None
        yield from map(Removed, self._known.end())
        yield from map(Removed, self._known.surplus())
        yield Listed(complete=True)
