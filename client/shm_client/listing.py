"""Reads a list page by page while the feed runs: the events of each page, and when the list is complete.

An instance that reports during the reading can move from an unread page to one that was read already; the feed sends
that change. A list is therefore complete only when the feed has reached the cursor of the last page, or has been
silent for so long that no such change is outstanding. Instances that the list does not contain are removed then.
"""

import asyncio
from collections.abc import Iterator

from .events import FeedEvent, InstanceRemoved, InstanceUpdated, Listed
from .instance_tracker import InstanceTracker
from .model import Page

# After the feed has reached the list's cursor, it may still have to send changes made during the reading: an instance
# that changes continuously is sent with its newest cursor, after changes of others that happened before.
SETTLE_TIMEOUT_S = 1.0
# Without a message for so long, the feed counts as caught up: the last change may be outside the subscription.
SILENCE_TIMEOUT_S = 5.0


class Listing:
    """The list that was started last."""

    def __init__(self, tracker: InstanceTracker) -> None:
        self.next_query: str | None = None  # of the first page that was not read
        self._tracker = tracker
        self._instance_count = 0  # in the pages so far
        self._end_cursor: int | None = None  # that the feed has to reach, once all pages are read
        self._settles_at: float | None = None  # the loop's time, once the feed has reached it

    def begin(self, page: Page) -> Iterator[FeedEvent]:
        """Starts a list with its first page."""
        self._tracker.begin_list()
        self._instance_count = 0
        self._end_cursor = self._settles_at = None
        yield from self.add_page(page)
        if self.next_query is not None or self._end_cursor is not None:
            yield Listed(complete=False)

    def add_page(self, page: Page) -> Iterator[FeedEvent]:
        """Adds the page of `next_query`."""
        for instance in page.instances:
            if self._tracker.update(instance, page.cursor):
                yield InstanceUpdated(instance, changed=False)
        self._instance_count += len(page.instances)
        newest = self._tracker.newest
        self.next_query = page.next if newest is None or self._instance_count < newest else None
        if self.next_query is None:
            self._end_cursor = page.cursor
            if not self._tracker.has_outdated():
                yield from self.finish()

    @property
    def silence_timeout_s(self) -> float | None:
        """Seconds without a message after which to call `finish`; None while pages are missing."""
        if self._end_cursor is None:
            return None
        return SILENCE_TIMEOUT_S if self._settles_at is None else SETTLE_TIMEOUT_S

    def advance(self, cursor: int) -> Iterator[FeedEvent]:
        """The feed has sent the changes up to this cursor."""
        if self._end_cursor is None or cursor < self._end_cursor:
            return
        now = asyncio.get_running_loop().time()
        if self._settles_at is None:
            self._settles_at = now + SETTLE_TIMEOUT_S
        if now >= self._settles_at or not self._tracker.has_outdated():
            yield from self.finish()

    def finish(self) -> Iterator[FeedEvent]:
        """Completes the list and removes the instances that it lacks. Does nothing while pages are missing."""
        if self._end_cursor is None:
            return
        self._end_cursor = None
        yield from map(InstanceRemoved, self._tracker.end_list())
        yield from map(InstanceRemoved, self._tracker.evict_oldest())
        yield Listed(complete=True)
