"""Tracks which state of each instance a feed has reported, to decide whether a page or message contains a newer one.

This module has the rules of list-then-watch. A page can be older than a message that arrived before it, and then
changes nothing. An instance that a complete list does not contain is gone. For each instance the tracker keeps its ID,
its application's slug and three numbers.
"""

from heapq import nsmallest

import msgspec

from .errors import TooManyInstancesError
from .model import Instance

MAX_INSTANCES = 1_000_000  # about 300 bytes each; the largest fleet that one server is meant for
EVICTION_SLACK = 500  # instances kept beyond `newest`, so that the longest unseen ones are evicted in bulk


class _Entry(msgspec.Struct, gc=False):  # there are thousands, which are in no cycle
    cursor: int
    generation: int  # the number of the list during or after which the instance was last listed or changed
    app: str
    last_seen_s: float | None  # None: removed, and remembered only while a list is read


class InstanceTracker:
    """The instances that the feed's subscriber holds; with `newest`, at most that many and EVICTION_SLACK."""

    def __init__(self, newest: int | None = None) -> None:
        self.newest = newest
        self._entries: dict[str, _Entry] = {}
        self._generation = 0
        self._outdated_count = 0  # entries of earlier generations
        self._is_listing = False

    def application_slug(self, instance_id: str) -> str | None:
        """The slug of an instance's application, None for an unknown instance."""
        entry = self._entries.get(instance_id)
        return entry.app if entry is not None else None

    def begin_list(self) -> None:
        """Starts a list, which overrides every earlier state, whatever the cursors are.

        The cursors of a restored or recreated database start again at a smaller number.
        """
        self._generation += 1
        self._outdated_count = len(self._entries)
        self._is_listing = True

    def update(self, instance: Instance, cursor: int) -> bool:
        """Records the state of an instance at `cursor`. Returns whether the state is newer than the recorded one."""
        instance_id = instance.instance_id
        entry = self._current_entry(instance_id)
        if entry is not None and (entry.cursor > cursor or (entry.cursor == cursor and entry.last_seen_s is not None)):
            return False
        self._store(instance_id, _Entry(cursor, self._generation, instance.app_slug, _last_seen_s(instance)))
        return True

    def remove(self, instance_id: str, cursor: int) -> bool:
        """Records a removal at `cursor`. Returns whether the subscriber holds the instance.

        False too if a newer page lists the instance: it has returned since.
        """
        previous, entry = self._entries.get(instance_id), self._current_entry(instance_id)
        if entry is not None and entry.cursor > cursor:
            return False
        if self._is_listing:
            self._store(instance_id, _Entry(cursor, self._generation, previous.app if previous else "", None))
        else:
            self._entries.pop(instance_id, None)
        return previous is not None and previous.last_seen_s is not None

    def has_outdated(self) -> bool:
        """Whether the current list has not confirmed every instance of earlier lists yet."""
        return self._outdated_count > 0

    def end_list(self) -> list[str]:
        """Ends the list. Returns the IDs of the instances that neither it nor a message since its start contained."""
        self._is_listing = False
        removed = [key for key, entry in self._entries.items() if entry.last_seen_s is None]
        for key in removed:
            del self._entries[key]
        vanished = [key for key, entry in self._entries.items() if entry.generation != self._generation]
        for key in vanished:
            del self._entries[key]
        self._outdated_count = 0
        return vanished

    def evict_oldest(self) -> list[str]:
        """Forgets the longest unseen instances beyond `newest` once EVICTION_SLACK is exceeded. Returns their IDs."""
        if self.newest is None or self._is_listing or len(self._entries) <= self.newest + EVICTION_SLACK:
            return []
        entries = self._entries
        oldest = nsmallest(len(entries) - self.newest, entries, key=lambda key: entries[key].last_seen_s or 0.0)
        for key in oldest:
            del entries[key]
        return oldest

    def _current_entry(self, instance_id: str) -> _Entry | None:
        """The entry of an instance, if it was recorded since the newest list began."""
        entry = self._entries.get(instance_id)
        return entry if entry is not None and entry.generation == self._generation else None

    def _store(self, instance_id: str, entry: _Entry) -> None:
        """Writes an entry. All writes go through here, which keeps `_outdated_count` right."""
        previous = self._entries.get(instance_id)
        if previous is not None:
            self._outdated_count -= previous.generation != self._generation
        elif len(self._entries) >= MAX_INSTANCES:
            raise TooManyInstancesError(
                f"there are more than {MAX_INSTANCES:,} instances: follow one application, or the newest only"
            )
        self._entries[instance_id] = entry


def _last_seen_s(instance: Instance) -> float:
    """When the instance was last seen, as Unix time; 0 for never."""
    last_seen_at = instance.last_seen_at or instance.first_seen_at
    return last_seen_at.timestamp() if last_seen_at else 0.0
