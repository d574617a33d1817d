"""The rows that the console holds: newest per instance, applied in bursts, filtered and sorted.

What the server says goes into `put` and `remove` at any rate and waits there, newest per instance; `flush` applies it,
a few times a second, and says what changed. The order is made anew only when something in it moved. While frozen,
nothing is applied.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import nsmallest

from shm_client import Instance
from shm_tui.model.columns import METRIC, SEEN, Column, Moment, Row, SortKey
from shm_tui.model.filter import EVERYTHING, Query

HELD = 20_000  # rows held at once: about 60 MiB with twenty metrics each, and a sort stays under a frame
SLACK = 500  # rows beyond HELD before the oldest go, so that they do not go one by one

_ATTRIBUTES = {
    "application": "app_name",
    "version": "app_version",
    "os": "os_arch",
    "environment": "environment",
    "mode": "deployment_mode",
}


@dataclass(slots=True)
class Flush:
    """What a flush did: per instance told, the columns worth a flash (a list is not news); whether the order moved."""

    changed: dict[str, set[str]] = field(default_factory=dict)
    rearranged: bool = False


@dataclass(slots=True)
class _Waiting:
    row: Row | None  # None: removed
    told: bool  # by the feed, so worth a flash


class Store:
    """Rows by instance id, and `ids`: those that the filter lets through, in order."""

    def __init__(self, limit: int = HELD) -> None:
        self.limit = limit
        self.rows: dict[str, Row] = {}
        self.ids: list[str] = []
        self.query: Query = EVERYTHING
        self.column: Column = SEEN
        self.descending = False
        self.frozen = False
        self.answered: Counter[str] = Counter()
        self.numeric: Counter[str] = Counter()
        self._waiting: dict[str, _Waiting] = {}
        self._keys: dict[str, SortKey | None] = {}
        self._shown: set[str] = set()  # the same as `ids`

    @property
    def held_back(self) -> int:
        """How many changes wait; what the status bar says while frozen."""
        return len(self._waiting)

    # What the feed says.

    def put(self, instance: Instance, *, told: bool = True) -> None:
        """The newest state of an instance."""
        self._wait(instance.instance_id, _Waiting(Row(instance), told))

    def remove(self, instance_id: str) -> None:
        """The instance is gone."""
        self._wait(instance_id, _Waiting(None, told=True))

    def remove_all(self) -> None:
        """What is held is to be told anew."""
        for instance_id in [*self.rows, *self._waiting]:
            self.remove(instance_id)

    # What the screen shows.

    def flush(self, moment: Moment) -> Flush:
        """Apply what waits."""
        flush = Flush()
        if self.frozen or not self._waiting:
            return flush
        waiting, self._waiting = self._waiting, {}
        moved = self.query.timed
        for key, news in waiting.items():
            old, new = self.rows.get(key), news.row
            self._count(old, -1)
            self._count(new, +1)
            if new is None:
                self.rows.pop(key, None)
                self._keys.pop(key, None)
                moved = moved or key in self._shown
                continue
            self.rows[key] = new
            flush.changed[key] = changes(old, new) if news.told else set()
            moved = self._moved(key, new, moment) or moved
        moved = self._evict() or moved
        if moved:
            self.arrange(moment, keep_keys=True)
            flush.rearranged = True
        return flush

    def arrange(self, moment: Moment, *, keep_keys: bool = False) -> None:
        """Filter and sort anew. Equals keep the order they had, which is what makes it calm."""
        if not keep_keys:
            self._keys.clear()
        rows, query, keys, column = self.rows, self.query, self._keys, self.column
        candidates = [key for key in self.ids if key in rows]
        candidates += [key for key in rows if key not in self._shown]
        if query:
            candidates = [key for key in candidates if query.matches(rows[key], moment)]
        for key in candidates:
            if key not in keys:
                keys[key] = column.key(rows[key], moment)
        present = [key for key in candidates if keys[key] is not None]
        absent = [key for key in candidates if keys[key] is None]
        present.sort(key=lambda key: keys[key] or (), reverse=self.descending)
        self.ids = present + absent
        self._shown = set(self.ids)

    def find(self, instance_id: str | None) -> int | None:
        """Where an instance stands in `ids`."""
        try:
            return None if instance_id is None else self.ids.index(instance_id)
        except ValueError:
            return None

    def _wait(self, key: str, news: _Waiting) -> None:
        # Taken out first, so that the order of the dictionary is that of the news.
        self._waiting.pop(key, None)
        self._waiting[key] = news
        if len(self._waiting) > 2 * (self.limit + SLACK):
            self._forget_surplus()

    def _moved(self, key: str, new: Row, moment: Moment) -> bool:
        """Whether a new row enters or leaves what the filter shows, or may stand elsewhere in it."""
        if not self.query.matches(new, moment):
            self._keys.pop(key, None)
            return key in self._shown
        sort_key = self.column.key(new, moment)
        moved = key not in self._shown or self._keys.get(key) != sort_key
        self._keys[key] = sort_key
        return moved

    def _count(self, row: Row | None, by: int) -> None:
        for key, value in row.leaves.items() if row else ():
            if value is not None:
                _add(self.answered, key, by)
            if isinstance(value, int | Decimal) and not isinstance(value, bool):
                _add(self.numeric, key, by)

    def _evict(self) -> bool:
        surplus = len(self.rows) - self.limit
        if surplus <= SLACK:
            return False
        for key in nsmallest(surplus, self.rows, key=lambda key: seen_at(self.rows[key])):
            self._count(self.rows.pop(key), -1)
            self._keys.pop(key, None)
        return True

    def _forget_surplus(self) -> None:
        """Of instances not held, only the last `limit` to be told can be among the newest when the ice breaks.

        At least SLACK of them go, for no more than `limit` and SLACK are held.
        """
        strangers = [key for key in self._waiting if key not in self.rows]
        for key in strangers[: -self.limit]:
            del self._waiting[key]


def _add(counter: Counter[str], key: str, by: int) -> None:
    """A key that nobody has any more is forgotten: who invents new ones each time must not fill the memory."""
    counter[key] += by
    if not counter[key]:
        del counter[key]


def seen_at(row: Row) -> float:
    """When the instance was last seen, as seconds; never is the beginning of time."""
    seen = row.instance.last_seen_at or row.instance.first_seen_at
    return seen.timestamp() if seen else 0.0


def changes(old: Row | None, new: Row) -> set[str]:
    """The ids of the columns in which `new` differs; a new instance is news in its name."""
    if old is None:
        return {"instance"}
    changed = {
        METRIC + key for key in old.leaves.keys() | new.leaves.keys() if old.leaves.get(key) != new.leaves.get(key)
    }
    changed |= {name for name, attribute in _ATTRIBUTES.items() if _differ(old, new, attribute)}
    if _differ(old, new, "status") or _differ(old, new, "counted"):
        changed.add("state")
    return changed


def _differ(old: Row, new: Row, attribute: str) -> bool:
    return bool(getattr(old.instance, attribute) != getattr(new.instance, attribute))


def numeric_keys(store: Store) -> Iterable[str]:
    """The keys whose values are numbers more often than not."""
    return (key for key, count in store.numeric.items() if 2 * count > store.answered[key])
