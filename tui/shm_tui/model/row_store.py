"""The rows of the table: the newest state of each instance, filtered and sorted.

`put` and `remove` accept changes at any rate and keep only the newest one of each instance. `flush` applies them, a few
times a second, and returns what changed. The order is rebuilt only when a change affects it. While the store is paused,
nothing is applied.

Of a fleet that is larger than the store, `visible_ids` may be a window: rows that the server has filtered and sorted,
from `first_index` on, of `row_count`. Then the store neither filters nor sorts.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import nsmallest

from shm_client import Instance
from shm_client.model import Value
from shm_tui.model.columns import METRIC_PREFIX, SEEN, TEXT_COLUMNS, Column, SortKey
from shm_tui.model.filter import MATCH_ALL, Filter
from shm_tui.model.row import Row
from shm_tui.model.state import Clock

MAX_ROWS = 10_000  # about 30 MiB with twenty metrics each; a larger fleet is shown by a window
EVICTION_SLACK = 500  # rows beyond MAX_ROWS before the oldest are evicted, so that they are evicted in bulk


@dataclass(slots=True)
class FlushResult:
    """The changes that a flush applied.

    `changed` has, by instance ID, the IDs of the columns to highlight; the set is empty for rows of a list.
    `is_other_list`: a window has rows of another filter or order, without the instance under the cursor.
    """

    changed: dict[str, set[str]] = field(default_factory=dict)
    order_changed: bool = False
    is_other_list: bool = False


@dataclass(slots=True)
class _PendingChange:
    row: Row | None  # None: removed
    highlight: bool
    before: Row | None = None  # the row that the others compare with
    changed: set[str] = field(default_factory=set)  # IDs of columns to highlight
    has_other_keys: bool = True  # or values of other types


class RowStore:
    """Rows by instance ID. `visible_ids` are those that match the filter, in sort order, or a window of these.

    `rows_in_view` are indexes, and `anchor_id` is the instance under a cursor that the user has
    moved. `on_view_moved` is called when other rows of a window come into view.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.limit = limit
        self.rows: dict[str, Row] = {}
        self.visible_ids: list[str] = []
        self.filter: Filter = MATCH_ALL
        self.filter_text = ""  # of the filter, as it was typed
        self.sort_column: Column = SEEN
        self.is_descending = False
        self.kept: set[str] = set()  # instances that are not evicted, however old they are
        self.has_sort_order = False  # the default order is chosen once, then only the user changes it
        self.is_paused = False
        self.marked: dict[str, Instance] = {}  # by the user, whatever the filter shows
        self.key_counts: Counter[str] = Counter()  # instances with a value, by metric key
        self.numeric_counts: Counter[str] = Counter()  # instances with a number, by metric key
        self._pending: dict[str, _PendingChange] = {}
        self._sort_keys: dict[str, SortKey] = {}
        self._visible: set[str] = set()  # the same as `visible_ids`
        self.is_windowed = False
        self.first_index = 0
        self.anchor_id: str | None = None
        self.rows_in_view = range(0)
        self.on_view_moved: Callable[[], None] = lambda: None
        self.is_counted = True  # `row_count` of a window is the server's number
        self._total = 0  # of a window
        self._next_window: tuple[list[str], int, int] | None = None  # shown at the next flush
        self._is_other_list = False  # the next window
        self._has_left_window = False  # since the last flush
        self._clock: Clock | None = None

    @property
    def pending_count(self) -> int:
        """The number of instances with changes that are not applied yet."""
        return len(self._pending)

    # Changes from the server.

    def put(self, instance: Instance, *, highlight: bool = True) -> None:
        """Accepts the newest state of an instance. `highlight` is false for rows of a list, which are not news.

        It compares the row here and not in `flush`, which many changes would make long: a key would wait for its end.
        """
        row, before = Row(instance), self.rows.get(instance.instance_id)
        changed = changed_columns(before, row) if highlight else set()
        has_other_keys = before is None or not _has_same_types(before.metrics, row.metrics)
        self._enqueue(instance.instance_id, _PendingChange(row, highlight, before, changed, has_other_keys))

    def remove(self, instance_id: str) -> None:
        """Accepts the removal of an instance."""
        self._enqueue(instance_id, _PendingChange(None, highlight=True))

    def keep(self, instances: list[Instance], others: Iterable[str] = ()) -> set[str]:
        """Puts these instances, and evicts none of them and of `others`.

        Returns the IDs that were kept before and no longer are.
        """
        before, self.kept = self.kept, {instance.instance_id for instance in instances}.union(others)
        for instance in instances:
            row, pending = self.rows.get(instance.instance_id), self._pending.get(instance.instance_id)
            is_leaving = pending is not None and pending.row is None
            if row is None or row.instance != instance or is_leaving:
                self.put(instance, highlight=False)
        return before - self.kept

    def remove_all(self) -> None:
        """Removes every instance, before all are listed again."""
        for instance_id in [*self.rows, *self._pending]:
            self.remove(instance_id)

    def discard(self) -> None:
        """Frees the rows: the store is not shown again. Its session may be in cycles that are never searched."""
        self.rows.clear()
        self._pending.clear()
        self._sort_keys.clear()
        self.visible_ids, self._visible, self._next_window = [], set(), None

    # A window on a larger fleet.

    def show_window(
        self, ids: list[str], loaded: list[Instance], first_index: int, total: int, *, is_other_list: bool = False
    ) -> set[str]:
        """Shows the rows of these instances, the first of which has an index among `total`, at the next flush.

        `loaded`: the instances that have just been received. The rows of the others stay as they are: the feed may
        have changed them since they were received.
        `is_other_list`: of another filter or order, without the instance under the cursor.
        Returns the IDs that were kept before and no longer are.
        """
        for instance in loaded:
            if instance.instance_id not in self.rows:  # also while paused: the user has moved there
                row = self.rows[instance.instance_id] = Row(instance)
                self._count_keys(None, row)
        ids = [each for each in ids if each in self.rows]
        released = self.keep(loaded, ids)
        self._next_window = ids, first_index, total
        self._is_other_list = self._is_other_list or is_other_list
        return released

    def set_window_total(self, total: int) -> None:
        """Changes the number of a window's rows, at the next flush."""
        ids, first_index, _ = self._next_window or (self.visible_ids, self.first_index, 0)
        self._next_window = ids, first_index, total

    def leave_window(self) -> set[str]:
        """Filters and sorts the rows of the store again, at the next flush. Returns the IDs that were kept."""
        self._next_window = None
        self.is_windowed, self.first_index, self._has_left_window = False, 0, True
        return self.keep([])

    def set_rows_in_view(self, rows: range) -> None:
        """The indexes of the rows in view. Rows of a window are requested if they are missing."""
        if rows != self.rows_in_view:
            self.rows_in_view = rows
            if self.is_windowed:
                self.on_view_moved()

    # The visible rows.

    @property
    def has_window(self) -> bool:
        """Whether a window is shown, or will be at the next flush."""
        return self.is_windowed or self._next_window is not None

    @property
    def row_count(self) -> int:
        """The number of rows, loaded or not; of a window, those that are known so far."""
        return self._total if self.is_windowed else len(self.visible_ids)

    @property
    def known_count(self) -> int | None:
        """The exact number of rows; None for a window that the server has not counted."""
        return self.row_count if self.is_counted or not self.is_windowed else None

    def id_at(self, index: int) -> str | None:
        """The instance of a row; None if it is not loaded."""
        position = index - self.first_index
        return self.visible_ids[position] if 0 <= position < len(self.visible_ids) else None

    def flush(self, clock: Clock) -> FlushResult:
        """Applies the pending changes, unless the store is paused."""
        self._clock = clock
        result = FlushResult(order_changed=self._change_window(clock), is_other_list=self._is_other_list)
        self._is_other_list = False
        if self.is_paused or not self._pending:
            return result
        pending, self._pending = self._pending, {}
        order_changed = self.filter.is_time_dependent and not self.is_windowed
        for key, change in pending.items():
            old, new = self.rows.get(key), change.row
            if change.has_other_keys or old is not change.before:
                self._count_keys(old, new)
            if new is None:
                self.rows.pop(key, None)
                self._sort_keys.pop(key, None)
                order_changed = order_changed or key in self._visible
                self._drop_from_window(key)
                continue
            self.rows[key] = new
            is_compared = old is change.before or not change.highlight
            result.changed[key] = change.changed if is_compared else changed_columns(old, new)
            if not self.is_windowed:
                order_changed = self._affects_order(key, new, clock) or order_changed
        order_changed = self._evict_oldest() or order_changed
        if order_changed and self.is_windowed:
            result.order_changed = True
        elif order_changed:
            before = self.visible_ids
            self.rebuild_order(clock, reuse_keys=True)
            result.order_changed = result.order_changed or self.visible_ids != before
        return result

    def rebuild_order(self, clock: Clock, *, reuse_keys: bool = False) -> None:
        """Filters and sorts all rows in the order of the server's lists, unless a window shows theirs."""
        if self.is_windowed:
            return
        if not reuse_keys:
            self._sort_keys.clear()
        sort_keys = self._sort_keys
        candidates = [key for key in self.visible_ids if key in self.rows]  # nearly sorted already
        candidates += [key for key in self.rows if key not in self._visible]
        if self.filter:
            candidates = [key for key in candidates if self.filter.matches(self.rows[key], clock)]
        for key in candidates:
            if key not in sort_keys:
                sort_keys[key] = self._sort_key(key, self.rows[key], clock)
        candidates.sort(key=sort_keys.__getitem__, reverse=self._is_reversed)
        self.visible_ids = candidates
        self._visible = set(candidates)

    def is_visible(self, instance_id: str) -> bool:
        """Whether an instance matches the filter. It may be outside of a window."""
        if instance_id in self._visible or not self.is_windowed or self._clock is None:
            return instance_id in self._visible
        row = self.rows.get(instance_id)
        return row is not None and self.filter.matches(row, self._clock)

    def index_of(self, instance_id: str | None) -> int | None:
        """The index of an instance's row; None if it is not visible, or not loaded."""
        try:
            return None if instance_id is None else self.first_index + self.visible_ids.index(instance_id)
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
        sort_key = self._sort_key(key, new, clock)
        has_moved = key not in self._visible or self._sort_keys.get(key) != sort_key
        self._sort_keys[key] = sort_key
        return has_moved

    @property
    def _is_reversed(self) -> bool:
        """Whether the greatest sort key comes first: the latest time has the shortest age."""
        return self.is_descending != self.sort_column.sorts_ages

    def _sort_key(self, key: str, row: Row, clock: Clock) -> SortKey:
        """Of a row, for both directions: types keep their order, and equal values are sorted by the instance ID."""
        type_rank, *value = self.sort_column.sort_key(row, clock)
        return (-type_rank if self._is_reversed else type_rank, *value, key)

    def _change_window(self, clock: Clock) -> bool:
        """Shows the next window, or the store's own rows after the last one. Returns whether rows have moved."""
        if self._next_window is not None:
            before = (self.visible_ids, self.first_index, self._total) if self.is_windowed else None
            is_other = self._next_window != before
            self.visible_ids, self.first_index, self._total = self._next_window
            self._visible = set(self.visible_ids)
            self._next_window, self.is_windowed, self._has_left_window = None, True, False
            return is_other
        if self._has_left_window:
            self._has_left_window = False
            self.rebuild_order(clock)
            return True
        return False

    def _drop_from_window(self, key: str) -> None:
        """Removes the row of a removed instance, which the next window lacks too."""
        if self.is_windowed and key in self._visible:
            self._visible.discard(key)
            self.visible_ids.remove(key)
            self._total -= 1

    def _count_keys(self, old: Row | None, new: Row | None) -> None:
        """Counts the keys of a row in place of those of its former state. Most changes are of values alone."""
        before, after = old.metrics if old else {}, new.metrics if new else {}
        if before.keys() != after.keys():
            self._add_to_counts(before.items(), -1)
            self._add_to_counts(after.items(), +1)
            return
        for key, value in after.items():
            former = before[key]
            if type(former) is not type(value):
                self._add_to_counts([(key, former)], -1)
                self._add_to_counts([(key, value)], +1)

    def _add_to_counts(self, metrics: Iterable[tuple[str, Value]], delta: int) -> None:
        for key, value in metrics:
            if value is not None:
                _add_to_count(self.key_counts, key, delta)
            if isinstance(value, int | Decimal) and not isinstance(value, bool):
                _add_to_count(self.numeric_counts, key, delta)

    def _evict_oldest(self) -> bool:
        surplus = len(self.rows) - len(self.kept) - self.limit
        if surplus <= EVICTION_SLACK:
            return False
        for key in nsmallest(surplus, self.rows.keys() - self.kept, key=lambda key: last_seen_ts(self.rows[key])):
            self._count_keys(self.rows.pop(key), None)
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


def _has_same_types(before: dict[str, Value], after: dict[str, Value]) -> bool:
    """Whether the keys are the same, in the same order, and their values of the same types."""
    return [*before] == [*after] and [*map(type, before.values())] == [*map(type, after.values())]


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
    before, after = old.metrics, new.metrics
    changed = {METRIC_PREFIX + key for key, value in after.items() if before.get(key) != value}
    changed |= {METRIC_PREFIX + key for key in before.keys() - after.keys() if before[key] is not None}
    changed |= {column.id for column in TEXT_COLUMNS if _attribute_differs(old, new, column.field)}
    if _attribute_differs(old, new, "status") or _attribute_differs(old, new, "counted"):
        changed.add("state")
    return changed


def _attribute_differs(old: Row, new: Row, attribute: str) -> bool:
    return bool(getattr(old.instance, attribute) != getattr(new.instance, attribute))


def numeric_keys(store: RowStore) -> Iterable[str]:
    """The metric keys whose values are numbers in more than half of the instances that have them."""
    return (key for key, count in store.numeric_counts.items() if 2 * count > store.key_counts[key])
