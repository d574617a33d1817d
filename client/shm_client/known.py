"""Which instances a feed has told of, and as of which cursor: what decides whether something that comes is news.

The rules of list-then-watch are all here. A page may be older than what the feed has told meanwhile, and then changes
nothing; what a whole list does not name is gone. Nothing of an instance is kept but its ID, its application's slug and
two numbers.
"""

from dataclasses import dataclass
from heapq import nsmallest

from .errors import TooManyInstancesError
from .model import Instance

MOST_INSTANCES = 1_000_000  # known at once, about 300 bytes each; the largest fleet that one server is meant for
SLACK = 500  # instances beyond the newest that were asked for, before the longest unseen go, so that they go in bulk


@dataclass(slots=True)
class _Entry:
    cursor: int
    listing: int  # the number of the list since whose beginning it was named or told
    app: str
    seen: float | None  # None: gone, and remembered only while a list is read


class Known:
    """The instances that whoever follows the feed holds; with `newest`, no more than so many and some slack."""

    def __init__(self, newest: int | None = None) -> None:
        self.newest = newest
        self._entries: dict[str, _Entry] = {}
        self._listing = 0
        self._unnamed = 0  # entries of earlier listings
        self._reading = False

    def application(self, instance_id: str) -> str | None:
        """The slug of a known instance's application."""
        entry = self._entries.get(instance_id)
        return entry.app if entry is not None else None

    def begin(self) -> None:
        """A list begins. What was told before is older than it, whatever the cursors say.

        A database that was restored or made anew begins to count again.
        """
        self._listing += 1
        self._unnamed = len(self._entries)
        self._reading = True

    def put(self, instance: Instance, cursor: int) -> bool:
        """The state of an instance as of `cursor`; whether it is news."""
        key = instance.instance_id
        entry = self._current(key)
        if entry is not None and (entry.cursor > cursor or (entry.cursor == cursor and entry.seen is not None)):
            return False
        self._enter(key, _Entry(cursor, self._listing, instance.app_slug, _seen(instance)))
        return True

    def remove(self, instance_id: str, cursor: int) -> bool:
        """An instance was removed; whether it is news. One that a newer page names has come back since."""
        known, entry = self._entries.get(instance_id), self._current(instance_id)
        if entry is not None and entry.cursor > cursor:
            return False
        if self._reading:
            self._enter(instance_id, _Entry(cursor, self._listing, known.app if known else "", None))
        else:
            self._entries.pop(instance_id, None)
        return known is not None and known.seen is not None

    def missing(self) -> bool:
        """Whether something is known that the list has not named yet, nor anybody told of since it began."""
        return self._unnamed > 0

    def end(self) -> list[str]:
        """The list is through: returns what it did not name and nobody told of since, which is gone."""
        self._reading = False
        gone = [key for key, entry in self._entries.items() if entry.seen is None]
        for key in gone:
            del self._entries[key]
        vanished = [key for key, entry in self._entries.items() if entry.listing != self._listing]
        for key in vanished:
            del self._entries[key]
        self._unnamed = 0
        return vanished

    def surplus(self) -> list[str]:
        """Those beyond the newest that were asked for, once they are more than the slack: forgotten by this."""
        if self.newest is None or self._reading or len(self._entries) <= self.newest + SLACK:
            return []
        entries = self._entries
        oldest = nsmallest(len(entries) - self.newest, entries, key=lambda key: entries[key].seen or 0.0)
        for key in oldest:
            del entries[key]
        return oldest

    def _current(self, key: str) -> _Entry | None:
        """What is known of an instance since the newest list began."""
        entry = self._entries.get(key)
        return entry if entry is not None and entry.listing == self._listing else None

    def _enter(self, key: str, entry: _Entry) -> None:
        """The only way in, so that those of earlier listings are counted."""
        before = self._entries.get(key)
        if before is not None:
            self._unnamed -= before.listing != self._listing
        elif len(self._entries) >= MOST_INSTANCES:
            raise TooManyInstancesError(
                f"there are more than {MOST_INSTANCES:,} instances: follow one application, or the newest alone"
            )
        self._entries[key] = entry


def _seen(instance: Instance) -> float:
    """When the instance was last seen, as seconds; never is the beginning of time."""
    seen = instance.last_seen_at or instance.first_seen_at
    return seen.timestamp() if seen else 0.0
