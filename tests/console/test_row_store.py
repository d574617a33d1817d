"""The row store: it equals a brute-force oracle, and rebuilds the order only if necessary."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.core.releases import version_rank
from shm_client import Instance
from shm_tui.model.columns import ENVIRONMENT, INSTANCE, SEEN, STATE, VERSION, Column, metric_column
from shm_tui.model.filter import parse_filter
from shm_tui.model.row import Row
from shm_tui.model.row_store import EVICTION_SLACK, RowStore, changed_columns, last_seen_ts, numeric_keys
from shm_tui.text.formatting import DAY, HOUR
from tests.support.console_rows import CLOCK, instance, row

SENT = metric_column("sent", "sent", True)


def make_instance(name: str, sent: object, **more: Any) -> Instance:
    """An instance whose only metric is `sent`."""
    return instance(name, metrics={"sent": sent}, **more)


def sorted_store(column: Column, descending: bool = False, **options: Any) -> RowStore:
    """An empty store in this order."""
    store = RowStore(**options)
    store.sort_column, store.is_descending = column, descending
    return store


def filled_store(*instances: Instance, column: Column = SENT, descending: bool = False, text: str = "") -> RowStore:
    """A store that contains these instances, flushed."""
    store = sorted_store(column, descending)
    store.filter = parse_filter(text)
    for item in instances:
        store.put(item)
    store.flush(CLOCK)
    return store


def sent_values(store: RowStore) -> dict[str, object]:
    """The value of `sent` of each instance."""
    return {key: item.metrics.get("sent") for key, item in store.rows.items()}


# Filter and order.

ORDERS = (SENT, SEEN, STATE, VERSION, ENVIRONMENT, INSTANCE, metric_column("mail.sent", "", True))
FILTERS = ("", "sent>3", "-sent>3", "env:prod", "status:active", "version>=1.4", "silent", "a", "mail.sent:", "seen<1h")
values = st.none() | st.booleans() | st.integers(0, 9) | st.decimals(0, 9, places=1) | st.sampled_from(["x", "Y", [1]])
instances = st.builds(
    instance,
    st.sampled_from("abcdef"),
    st.sampled_from([None, 1, HOUR, 40 * DAY]),
    status=st.sampled_from(["active", "active", "pending", "revoked"]),
    counted=st.booleans(),
    environment=st.sampled_from(["", "production", "ci"]),
    app_version=st.sampled_from(["", "1.4", "1.10", "1.5.0-rc.1"]),
    metrics=st.dictionaries(st.sampled_from(["sent", "other"]), values, max_size=2)
    | st.builds(lambda value: {"mail": {"sent": value}}, values),
)
steps = st.one_of(
    st.tuples(st.just("put"), instances, st.booleans()),
    st.tuples(st.just("put"), instances, st.booleans()),
    st.tuples(st.just("remove"), st.sampled_from("abcdef")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("sort"), st.sampled_from(ORDERS), st.booleans()),
    st.tuples(st.just("filter"), st.sampled_from(FILTERS)),
)


class Oracle:
    """The same by brute force: filters and sorts the received states at every check."""

    def __init__(self) -> None:
        self.received: dict[str, Instance] = {}
        self.flushed: dict[str, Row] = {}

    def put(self, item: Instance) -> None:
        self.received[item.instance_id] = item

    def remove(self, name: str) -> None:
        self.received.pop(name, None)

    def flush(self) -> None:
        self.flushed = {name: Row(item) for name, item in self.received.items()}

    def check(self, store: RowStore) -> None:
        assert store.rows.keys() == self.flushed.keys()
        matching = [name for name, item in self.flushed.items() if store.filter.matches(item, CLOCK)]
        is_reversed = store.is_descending != (store.sort_column is SEEN)
        by_rank: dict[int, list[tuple[Any, ...]]] = {}
        for name in matching:
            rank, *value = store.sort_column.sort_key(self.flushed[name], CLOCK)
            by_rank.setdefault(rank, []).append((*value, name))
        assert store.visible_ids == [
            key[-1] for rank in sorted(by_rank) for key in sorted(by_rank[rank], reverse=is_reversed)
        ]
        assert store.key_counts == Counter(
            name for item in self.flushed.values() for name, value in item.metrics.items() if value is not None
        )


@pytest.mark.parametrize(
    "max_examples", [pytest.param(100, id="short"), pytest.param(2000, id="long", marks=pytest.mark.long)]
)
def test_the_visible_rows_equal_a_full_filter_and_sort(max_examples: int) -> None:
    @settings(max_examples=max_examples)
    @given(st.lists(steps, min_size=8, max_size=60))
    def check_script(script: list[Any]) -> None:
        store, oracle = RowStore(), Oracle()
        for kind, *arguments in script:
            before = list(store.visible_ids)
            match kind, arguments:
                case "put", [item, highlight]:
                    store.put(item, highlight=highlight)
                    oracle.put(item)
                case "remove", [name]:
                    store.remove(name)
                    oracle.remove(name)
                case "flush", _:
                    if not store.is_paused:
                        oracle.flush()
                    if not store.flush(CLOCK).order_changed:
                        assert store.visible_ids == before
                case "pause", [paused]:
                    store.is_paused = paused
                case "sort", [column, descending]:
                    store.sort_column, store.is_descending = column, descending
                    store.rebuild_order(CLOCK)
                case "filter", [text]:
                    store.filter = parse_filter(text, store.key_counts, {"1.4": version_rank("1.4")})
                    store.rebuild_order(CLOCK)
            oracle.check(store)

    check_script()


def test_rows_without_a_value_are_last_in_both_directions() -> None:
    items = [make_instance("a", None), make_instance("b", 2), instance("c"), make_instance("d", 1)]
    assert filled_store(*items).visible_ids == ["d", "b", "a", "c"]
    assert filled_store(*items, descending=True).visible_ids == ["b", "d", "c", "a"]


def test_equal_values_are_sorted_by_the_instance_id() -> None:
    for column in (SENT, SEEN, STATE, VERSION, ENVIRONMENT):
        store = filled_store(*(make_instance(name, 5) for name in "dbca"), column=column)
        assert store.visible_ids == (list("dcba") if column is SEEN else list("abcd"))
        store.is_descending = True
        store.rebuild_order(CLOCK)
        assert store.visible_ids == (list("abcd") if column is SEEN else list("dcba"))


def test_numbers_sort_before_texts_and_by_value() -> None:
    items = [make_instance("a", "x"), make_instance("b", 10), make_instance("c", 9), make_instance("d", Decimal("9.5"))]
    assert filled_store(*items).visible_ids == ["c", "d", "b", "a"]


@pytest.mark.parametrize(
    ("change", "order_changed"),
    [
        (lambda store: store.put(instance("b", metrics={"sent": 2, "other": 9})), False),
        (lambda store: store.put(make_instance("b", 2, environment="ci")), False),
        (lambda store: store.put(make_instance("b", 2)), False),
        (lambda store: store.put(make_instance("b", 3)), False),
        (lambda store: store.put(make_instance("b", 0)), True),
        (lambda store: store.put(make_instance("b", 50)), True),
        (lambda store: store.put(make_instance("z", 50)), False),
        (lambda store: store.put(make_instance("new", 50)), False),
        (lambda store: store.put(make_instance("new", 5)), True),
        (lambda store: store.remove("b"), True),
        (lambda store: store.remove("z"), False),
        (lambda store: store.remove("unknown"), False),
    ],
    ids=[
        "other",
        "text",
        "same",
        "keeps its place",
        "moves",
        "leaves",
        "stays out",
        "new outside",
        "enters",
        "removed",
        "outside",
        "never",
    ],
)
def test_the_order_changes_only_if_rows_move(change: Callable[[RowStore], None], order_changed: bool) -> None:
    store = filled_store(make_instance("a", 1), make_instance("b", 2), make_instance("z", 60), text="sent<10")
    for _ in range(2):  # the sort key of a hidden row is cached after the first time
        change(store)
        assert store.flush(CLOCK).order_changed is order_changed
        store = (
            filled_store(make_instance("a", 1), make_instance("b", 2), make_instance("z", 60), text="sent<10")
            if order_changed
            else store
        )


def test_a_filter_of_ages_is_applied_again_with_any_change() -> None:
    store = filled_store(make_instance("a", 1, seen=HOUR - 1), make_instance("b", 2, seen=1), text="seen<1h")
    assert store.visible_ids == ["a", "b"]
    later = type(CLOCK)(CLOCK.now.replace(minute=1), CLOCK.active_window_s)
    store.put(make_instance("b", 2, seen=1))
    assert store.flush(later).order_changed
    assert store.visible_ids == ["b"]


def test_the_index_of_an_instance() -> None:
    store = filled_store(make_instance("a", 2), make_instance("b", 1), make_instance("c", 99), text="sent<10")
    assert [store.index_of(name) for name in ("b", "a", "c", "nobody", None)] == [0, 1, None, None, None]


# The result of a flush.


def test_a_flush_names_the_columns_in_which_an_instance_changed() -> None:
    store = filled_store(make_instance("a", 1), make_instance("b", 1))
    store.put(instance("a", 1, metrics={"sent": 2, "new": 0}, app_version="1.5"))
    assert store.flush(CLOCK).changed == {"a": {"metric:sent", "metric:new", "version"}}
    assert store.flush(CLOCK).changed == {}


def test_a_burst_on_one_instance_is_one_change() -> None:
    store = filled_store(make_instance("a", 1))
    for sent in (2, 3, 1):
        store.put(make_instance("a", sent, environment="ci"))
    store.put(make_instance("a", 1, environment="ci"))
    assert store.flush(CLOCK).changed == {"a": {"environment"}}


def test_a_change_is_compared_with_the_row_of_a_window_that_came_after_it() -> None:
    store = filled_store(make_instance("a", 1))
    store.put(make_instance("b", 2))
    store.show_window(["b"], [make_instance("b", 1)], 0, 1)
    assert store.flush(CLOCK).changed == {"b": {"metric:sent"}}


def test_a_discarded_store_has_no_rows() -> None:
    store = filled_store(make_instance("a", 1))
    store.put(make_instance("b", 2))
    store.discard()
    store.flush(CLOCK)
    assert (store.rows, store.row_count, store.id_at(0)) == ({}, 0, None)


def test_rows_of_a_list_are_not_highlighted() -> None:
    store = filled_store(make_instance("a", 1))
    store.put(make_instance("a", 2), highlight=False)
    store.put(make_instance("b", 2), highlight=False)
    assert store.flush(CLOCK).changed == {"a": set(), "b": set()}


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (None, row(), {"instance"}),
        (row(), row(seen=1), set()),
        (row(app_name="A"), row(app_name="B"), {"application"}),
        (row(os_arch="A"), row(os_arch="B"), {"os"}),
        (row(deployment_mode="A"), row(deployment_mode="B"), {"mode"}),
        (row(), row(status="revoked"), {"state"}),
        (row(), row(counted=False), {"state"}),
        (row(metrics={"version": 1}), row(metrics={"version": 2}), {"metric:version"}),
        (row(metrics={"a": {"b": 1}}), row(metrics={"a": {"b": 2}}), {"metric:a.b"}),
        (row(metrics={"a": 1}), row(), {"metric:a"}),
        (row(metrics={"a": 1}), row(metrics={"a": Decimal("1.0")}), set()),
    ],
)
def test_a_change_has_the_id_of_its_column(before: Row | None, after: Row, changed: set[str]) -> None:
    assert changed_columns(before, after) == changed


def test_a_column_is_numeric_if_most_of_its_values_are() -> None:
    store = filled_store(
        make_instance("a", 1),
        make_instance("b", Decimal("0.5")),
        make_instance("c", "many"),
        instance("d", metrics={"flag": True}),
    )
    assert set(numeric_keys(store)) == {"sent"}
    store.put(make_instance("b", "few"))
    store.flush(CLOCK)
    assert set(numeric_keys(store)) == set()


# Pausing.


def test_a_paused_store_counts_changes_and_applies_none() -> None:
    store = filled_store(make_instance("a", 1), make_instance("b", 2))
    store.is_paused = True
    for cursor in range(10, 20):
        store.put(make_instance("a", cursor))
    store.put(make_instance("c", 0))
    store.remove("b")
    flush = store.flush(CLOCK)
    assert (flush.changed, flush.order_changed, store.pending_count) == ({}, False, 3)
    assert (store.visible_ids, sent_values(store)) == (["a", "b"], {"a": 1, "b": 2})
    store.is_paused = False
    store.flush(CLOCK)
    assert (store.pending_count, sent_values(store)) == (0, {"a": 19, "c": 0})


def test_a_paused_store_can_be_filtered_and_sorted() -> None:
    store = filled_store(make_instance("a", 1), make_instance("b", 2), make_instance("c", 3))
    store.is_paused = True
    store.put(make_instance("a", 9))
    store.filter, store.is_descending = parse_filter("sent<3"), True
    store.rebuild_order(CLOCK)
    assert store.visible_ids == ["b", "a"]


# Bounds.


def test_the_longest_unseen_rows_are_evicted_beyond_the_limit() -> None:
    store = sorted_store(SEEN, limit=10)
    for age in range(10 + EVICTION_SLACK):
        store.put(instance(f"i{age}", age))
    store.flush(CLOCK)
    assert len(store.visible_ids) == 10 + EVICTION_SLACK
    store.put(instance("never", None))
    store.flush(CLOCK)
    assert store.visible_ids == [f"i{age}" for age in range(10)]
    assert store.rows.keys() == set(store.visible_ids)


def test_rows_never_seen_are_the_oldest() -> None:
    pending = row("p", None, first_seen_at=row(seen=5).instance.last_seen_at)
    assert (
        last_seen_ts(row("n", None))
        < last_seen_ts(row("o", 9 * DAY))
        < last_seen_ts(pending)
        < last_seen_ts(row("y", 1))
    )


def test_a_long_pause_keeps_a_limited_number_of_changes() -> None:
    store = sorted_store(SENT, limit=10)
    store.put(make_instance("held", 1))
    store.flush(CLOCK)
    store.is_paused = True
    store.put(make_instance("held", 2))
    for number in range(5000):
        store.put(make_instance(f"i{number}", number, seen=5000 - number))
        store.remove(f"gone{number}")
    assert store.pending_count <= 2 * (10 + EVICTION_SLACK)
    store.is_paused = False
    store.flush(CLOCK)
    assert {f"i{number}" for number in range(4991, 5000)} <= store.rows.keys()


def test_pending_changes_are_dropped_in_bulk() -> None:
    """Dropping reads all pending changes, so it must not happen for each message."""
    store = sorted_store(SENT, limit=10)
    for number in range(10 + EVICTION_SLACK):
        store.put(make_instance(f"i{number}", 1))
    store.flush(CLOCK)
    store.is_paused = True
    for number in range(10 + EVICTION_SLACK):
        store.put(make_instance(f"i{number}", 2))
    before = store.pending_count
    for number in range(3 * EVICTION_SLACK):
        store.put(make_instance(f"stranger{number}", 1))
        assert store.pending_count == before + 1 or store.pending_count <= before + 1 - EVICTION_SLACK
        before = store.pending_count


def test_new_keys_in_every_snapshot_do_not_fill_the_memory() -> None:
    store = RowStore()
    for number in range(100):
        store.put(instance("a", metrics={f"k{number}": number}))
        store.flush(CLOCK)
    assert store.key_counts == store.numeric_counts == {"k99": 1}
