"""The rows of the table: the newest state of each instance, filtered and sorted.

`put` and `remove` accept changes at any rate and keep only the newest one of each instance. `flush` applies them, a few
times a second, and returns what changed. The order is rebuilt only when a change affects it. While the store is paused,
nothing is applied.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import nsmallest

from shm_client import Instance
from shm_tui.model.columns import METRIC_PREFIX, SEEN, Column, SortKey
from shm_tui.model.filter import MATCH_ALL, Filter
from shm_tui.model.row import Row
from shm_tui.model.state import Clock

MAX_ROWS = 20_000  # about 60 MiB with twenty metrics each; sorting them takes less than one frame
EVICTION_SLACK = 500  # rows beyond MAX_ROWS before the oldest are evicted, so that they are evicted in bulk

_TEXT_COLUMNS = {
    "application": "app_name",
    "version": "app_version",
    "os": "os_arch",
    "environment": "environment",
    "mode": "deployment_mode",
}


@dataclass(slots=True)
class FlushResult:
    """The changes that a flush applied.

    `changed` has, by instance ID, the IDs of the columns to highlight; the set is empty for rows of a list.
    """

    changed: dict[str, set[str]] = field(default_factory=dict)
    order_changed: bool = False


@dataclass(slots=True)
class _PendingChange:
    row: Row | None  # None: removed
    highlight: bool


class RowStore:
    """Rows by instance ID. `visible_ids` are those that match the filter, in sort order."""

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.limit = limit
        self.rows: dict[str, Row] = {}
        self.visible_ids: list[str] = []
        self.filter: Filter = MATCH_ALL
        self.sort_column: Column = SEEN
        self.is_descending = False
        self.kept: set[str] = set()  # instances that are not evicted, however old they are
        self.has_sort_order = False  # the default order is chosen once, then only the user changes it
        self.is_paused = False
        self.key_counts: Counter[str] = Counter()  # instances with a value, by metric key
        self.numeric_counts: Counter[str] = Counter()  # instances with a number, by metric key
        self._pending: dict[str, _PendingChange] = {}
        self._sort_keys: dict[str, SortKey | None] = {}
        self._visible: set[str] = set()  # the same as `visible_ids`

    @property
    def pending_count(self) -> int:
        """The number of instances with changes that are not applied yet."""
        return len(self._pending)

    # Changes from the server.

    def put(self, instance: Instance, *, highlight: bool = True) -> None:
        """Accepts the newest state of an instance. `highlight` is false for rows of a list, which are not news."""
        self._enqueue(instance.instance_id, _PendingChange(Row(instance), highlight))

    def remove(self, instance_id: str) -> None:
        """Accepts the removal of an instance."""
        self._enqueue(instance_id, _PendingChange(None, highlight=True))

    def keep(self, instances: list[Instance]) -> set[str]:
        """Puts these instances, and evicts none of them. Returns the IDs that were kept before and no longer are."""
        before, self.kept = self.kept, {instance.instance_id for instance in instances}
        for instance in instances:
            row = self.rows.get(instance.instance_id)
            if row is None or row.instance != instance:
                self.put(instance, highlight=False)
        return before - self.kept

    def remove_all(self) -> None:
        """Removes every instance, before all are listed again."""
        for instance_id in [*self.rows, *self._pending]:
            self.remove(instance_id)

    # The visible rows.

    def flush(self, clock: Clock) -> FlushResult:
        """Applies the pending changes, unless the store is paused."""
        result = FlushResult()
        if self.is_paused or not self._pending:
            return result
        pending, self._pending = self._pending, {}
        order_changed = self.filter.is_time_dependent
        for key, change in pending.items():
            old, new = self.rows.get(key), change.row
            self._count_keys(old, -1)
            self._count_keys(new, +1)
            if new is None:
                self.rows.pop(key, None)
                self._sort_keys.pop(key, None)
                order_changed = order_changed or key in self._visible
                continue
            self.rows[key] = new
            result.changed[key] = changed_columns(old, new) if change.highlight else set()
            order_changed = self._affects_order(key, new, clock) or order_changed
        order_changed = self._evict_oldest() or order_changed
        if order_changed:
            self.rebuild_order(clock, reuse_keys=True)
            result.order_changed = True
        return result

    def rebuild_order(self, clock: Clock, *, reuse_keys: bool = False) -> None:
        """Filters and sorts all rows. The sort is stable, so that equal rows keep their places."""
        if not reuse_keys:
            self._sort_keys.clear()
        sort_keys = self._sort_keys
        candidates = [key for key in self.visible_ids if key in self.rows]
        candidates += [key for key in self.rows if key not in self._visible]
        if self.filter:
            candidates = [key for key in candidates if self.filter.matches(self.rows[key], clock)]
        for key in candidates:
            if key not in sort_keys:
                sort_keys[key] = self.sort_column.sort_key(self.rows[key], clock)
        with_value = [key for key in candidates if sort_keys[key] is not None]
        without_value = [key for key in candidates if sort_keys[key] is None]
        with_value.sort(key=lambda key: sort_keys[key] or (), reverse=self.is_descending)
        self.visible_ids = with_value + without_value
        self._visible = set(self.visible_ids)

    def is_visible(self, instance_id: str) -> bool:
        """Whether an instance matches the filter."""
        return instance_id in self._visible

    def index_of(self, instance_id: str | None) -> int | None:
        """The index of an instance in `visible_ids`; None if it is not visible."""
        try:
            return None if instance_id is None else self.visible_ids.index(instance_id)
        except ValueError:
            return None

    def _enqueue(self, key: str, change: _PendingChange) -> None:
        # An existing entry is removed first: the dictionary is ordered by the newest change.
        self._pending.pop(key, None)
        self._pending[key] = change
        if len(self._pending) > 2 * (self.limit + EVICTION_SLACK):
            self._trim_pending()

    def _affects_order(self, key: str, new: Row, clock: Clock) -> bool:
        """Whether a new row starts or stops matching the filter, or its sort key changed."""
        if not self.filter.matches(new, clock):
            self._sort_keys.pop(key, None)
            return key in self._visible
        sort_key = self.sort_column.sort_key(new, clock)
        has_moved = key not in self._visible or self._sort_keys.get(key) != sort_key
        self._sort_keys[key] = sort_key
        return has_moved

    def _count_keys(self, row: Row | None, delta: int) -> None:
        for key, value in row.metrics.items() if row else ():
            if value is not None:
                _add_to_count(self.key_counts, key, delta)
            if isinstance(value, int | Decimal) and not isinstance(value, bool):
                _add_to_count(self.numeric_counts, key, delta)

    def _evict_oldest(self) -> bool:
        surplus = len(self.rows) - len(self.kept) - self.limit
        if surplus <= EVICTION_SLACK:
            return False
        for key in nsmallest(surplus, self.rows.keys() - self.kept, key=lambda key: last_seen_ts(self.rows[key])):
            self._count_keys(self.rows.pop(key), -1)
            self._sort_keys.pop(key, None)
        return True

    def _trim_pending(self) -> None:
        """Drops pending instances that cannot be among the newest `limit` when the store is resumed.

        Of the instances without a row, only the last `limit` can. At least EVICTION_SLACK are dropped, because there
        are at most `limit` + EVICTION_SLACK rows.
        """
        without_row = [key for key in self._pending if key not in self.rows]
        for key in without_row[: -self.limit]:
            del self._pending[key]


def _add_to_count(counter: Counter[str], key: str, delta: int) -> None:
    """Deletes a key at zero: an install that sends new keys every time must not fill the memory."""
    counter[key] += delta
    if not counter[key]:
        del counter[key]


def last_seen_ts(row: Row) -> float:
    """The time at which the instance was last seen, else first seen, in seconds since the epoch; 0 for neither."""
    seen = row.instance.last_seen_at or row.instance.first_seen_at
    return seen.timestamp() if seen else 0.0


def changed_columns(old: Row | None, new: Row) -> set[str]:
    """The IDs of the columns in which `new` differs from `old`; of a new instance, the column of its ID."""
    if old is None:
        return {"instance"}
    changed = {
        METRIC_PREFIX + key
        for key in old.metrics.keys() | new.metrics.keys()
        if old.metrics.get(key) != new.metrics.get(key)
    }
    changed |= {column for column, attribute in _TEXT_COLUMNS.items() if _attribute_differs(old, new, attribute)}
    if _attribute_differs(old, new, "status") or _attribute_differs(old, new, "counted"):
        changed.add("state")
    return changed


def _attribute_differs(old: Row, new: Row, attribute: str) -> bool:
    return bool(getattr(old.instance, attribute) != getattr(new.instance, attribute))


def numeric_keys(store: RowStore) -> Iterable[str]:
    """The metric keys whose values are numbers in more than half of the instances that have them."""
    return (key for key, count in store.numeric_counts.items() if 2 * count > store.key_counts[key])
