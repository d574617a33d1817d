"""The first rows of sorted lists, kept for a minute: a list that is requested again reads few instances.

A scan finds the instances that come first, as of a cursor of the feed. Every later change of an instance has a greater
cursor. One without a change stays where it is: among the first rows, or behind them. So the first rows of now are among
those of then and the instances that have changed since. The answer is that of a scan, at a small part of its cost.

Each server process keeps its own. They are not shared, because a request without them takes a scan and nothing else.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shm.analytics.sorting import SortKey
from shm.db.conditions import Condition, Conditions

FIRST_ROWS = 1_000  # of a scan, at most: five pages of the console
MAX_FIRST_ROWS = 2_000  # as instances come in before the end
MAX_CHANGES = 10_000  # since the last request; to read more costs as much as a scan
MAX_AGE_S = 60.0  # since the scan; a standby that became the primary may issue cursors again that were lost
MAX_LISTS = 32  # of a process, with some 200 KiB each


@dataclass(frozen=True, slots=True)
class FirstRows:
    """The instances before the sort key `end`, all of them as of a cursor of the feed.

    `end` is None if they are all of the list.
    """

    instance_ids: Sequence[str]
    end: SortKey | None
    cursor: int
    scanned_at: float = field(default_factory=time.monotonic)

    def reach(self, rows: int) -> bool:
        """Whether a page that ends with this number of rows, and whether others follow it, is known from them."""
        return self.end is None or len(self.instance_ids) > rows

    def as_of(self, cursor: int, instance_ids: Sequence[str]) -> "FirstRows":
        """The instances before the same end at a later cursor."""
        return replace(self, cursor=cursor, instance_ids=instance_ids)

    def conditions(self) -> Conditions:
        """Selects them, as of their cursor."""
        return Conditions([Condition("condition_instances", {"ids": self.instance_ids})])

    def with_changes(self, conditions: Conditions) -> Conditions:
        """Selects those of them and of the instances changed since that meet the conditions."""
        candidates = Condition("condition_first_rows", {"ids": self.instance_ids, "cursor": self.cursor})
        return Conditions([*conditions.all_of, candidates])


class FirstRowsCache:
    """The first rows of the lists that one process has scanned last."""

    def __init__(self) -> None:
        self._lists: OrderedDict[str, FirstRows] = OrderedDict()

    def get(self, name: str) -> FirstRows | None:
        """Those of a list, unless they are too old."""
        rows = self._lists.get(name)
        return None if rows is None or rows.scanned_at + MAX_AGE_S < time.monotonic() else rows

    def put(self, name: str, rows: FirstRows | None) -> None:
        """Replaces those of a list. None: forgets them."""
        self._lists.pop(name, None)
        if rows is not None:
            self._lists[name] = rows
            if len(self._lists) > MAX_LISTS:
                self._lists.popitem(last=False)
