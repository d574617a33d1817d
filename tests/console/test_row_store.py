"""The rows that the console holds: true to what was said last, whatever the order, and calm where nothing moved."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.core.releases import version_rank
from shm_client import Instance
from shm_tui.model.columns import ENVIRONMENT, INSTANCE, SEEN, STATE, VERSION, Column, metric_column
from shm_tui.model.filter import parse_filter
from shm_tui.model.row import Row
from shm_tui.model.row_store import EVICTION_SLACK, RowStore, changed_columns, last_seen_ts, numeric_keys
from shm_tui.text.formatting import DAY, HOUR
from tests.support.console_rows import CLOCK, instance, many_examples, row

SENT = metric_column("sent", "sent", True)


def sends(name: str, sent: object, **more: Any) -> Instance:
    """An instance whose only metric is `sent`."""
    return instance(name, metrics={"sent": sent}, **more)


def sorted_by(column: Column, descending: bool = False, **store: Any) -> RowStore:
    """An empty store in this order."""
    made = RowStore(**store)
    made.sort_column, made.is_descending = column, descending
    return made


def filled(*instances: Instance, column: Column = SENT, descending: bool = False, text: str = "") -> RowStore:
    """A store that holds and shows these."""
    store = sorted_by(column, descending)
    store.filter = parse_filter(text)
    for one in instances:
        store.put(one)
    store.flush(CLOCK)
    return store


def held(store: RowStore) -> dict[str, object]:
    """What `sent` is of each instance."""
    return {key: one.metrics.get("sent") for key, one in store.rows.items()}


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
    st.tuples(st.just("freeze"), st.booleans()),
    st.tuples(st.just("sort"), st.sampled_from(ORDERS), st.booleans()),
    st.tuples(st.just("filter"), st.sampled_from(FILTERS)),
)


class Oracle:
    """The same by brute force: what was said, filtered and sorted anew at every look."""

    def __init__(self) -> None:
        self.said: dict[str, Instance] = {}
        self.shown: dict[str, Row] = {}

    def put(self, one: Instance) -> None:
        self.said[one.instance_id] = one

    def remove(self, name: str) -> None:
        self.said.pop(name, None)

    def flush(self) -> None:
        self.shown = {name: Row(one) for name, one in self.said.items()}

    def check(self, store: RowStore, before: list[str]) -> None:
        """`before` is what was shown until now: of equals, whoever stood first stands first."""
        assert store.rows.keys() == self.shown.keys()
        matching = {name for name, one in self.shown.items() if store.filter.matches(one, CLOCK)}
        assert set(store.visible_ids) == matching
        assert len(store.visible_ids) == len(matching)
        keys = [store.sort_column.sort_key(self.shown[name], CLOCK) for name in store.visible_ids]
        present = [key for key in keys if key is not None]
        assert keys == present + [None] * (len(keys) - len(present))
        assert present == sorted(present, reverse=store.is_descending)
        place = {name: number for number, name in enumerate(before)}
        for key in {repr(key): key for key in keys}.values():
            alike = [
                place[name] for name, its in zip(store.visible_ids, keys, strict=True) if its == key and name in place
            ]
            assert alike == sorted(alike)
        assert store.key_counts == Counter(
            name for one in self.shown.values() for name, value in one.metrics.items() if value is not None
        )


@many_examples
@given(st.lists(steps, min_size=8, max_size=60))
def test_the_shown_rows_equal_a_full_filter_and_sort(script: list[Any]) -> None:
    """After anything what is shown is what filtering and sorting all rows would show."""
    store, oracle = RowStore(), Oracle()
    for kind, *arguments in script:
        before = list(store.visible_ids)
        match kind, arguments:
            case "put", [one, highlight]:
                store.put(one, highlight=highlight)
                oracle.put(one)
            case "remove", [name]:
                store.remove(name)
                oracle.remove(name)
            case "flush", _:
                if not store.is_paused:
                    oracle.flush()
                if not store.flush(CLOCK).order_changed:
                    assert store.visible_ids == before
            case "freeze", [frozen]:
                store.is_paused = frozen
            case "sort", [column, descending]:
                store.sort_column, store.is_descending = column, descending
                store.rebuild_order(CLOCK)
            case "filter", [text]:
                store.filter = parse_filter(text, store.key_counts, {"1.4": version_rank("1.4")})
                store.rebuild_order(CLOCK)
        oracle.check(store, before)


def test_what_has_no_value_goes_last_in_both_directions() -> None:
    some = [sends("a", None), sends("b", 2), instance("c"), sends("d", 1)]
    assert filled(*some).visible_ids == ["d", "b", "a", "c"]
    assert filled(*some, descending=True).visible_ids == ["b", "d", "a", "c"]


def test_equals_keep_the_order_that_they_had_in_both_directions() -> None:
    store = filled(*(sends(name, 5) for name in "dbca"))
    assert store.visible_ids == list("dbca")
    for descending in (True, False):
        store.is_descending = descending
        store.rebuild_order(CLOCK)
        assert store.visible_ids == list("dbca")
    store.put(sends("c", 9))
    store.flush(CLOCK)
    store.put(sends("c", 5))
    store.flush(CLOCK)
    assert store.visible_ids == list("dbac")


def test_numbers_stand_before_texts_and_are_not_sorted_as_texts() -> None:
    some = [sends("a", "x"), sends("b", 10), sends("c", 9), sends("d", Decimal("9.5"))]
    assert filled(*some).visible_ids == ["c", "d", "b", "a"]


@pytest.mark.parametrize(
    ("news", "order_changed"),
    [
        (lambda store: store.put(instance("b", metrics={"sent": 2, "other": 9})), False),
        (lambda store: store.put(sends("b", 2, environment="ci")), False),
        (lambda store: store.put(sends("b", 2)), False),
        (lambda store: store.put(sends("b", 3)), True),
        (lambda store: store.put(sends("b", 50)), True),
        (lambda store: store.put(sends("z", 50)), False),
        (lambda store: store.put(sends("new", 50)), False),
        (lambda store: store.put(sends("new", 5)), True),
        (lambda store: store.remove("b"), True),
        (lambda store: store.remove("z"), False),
        (lambda store: store.remove("unheard-of"), False),
    ],
    ids=[
        "other",
        "text",
        "same",
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
def test_the_order_is_made_anew_only_when_something_in_it_moved(
    news: Callable[[RowStore], None], order_changed: bool
) -> None:
    store = filled(sends("a", 1), sends("b", 2), sends("z", 60), text="sent<10")
    for _ in range(2):  # what is hidden is remembered after the first time
        news(store)
        assert store.flush(CLOCK).order_changed is order_changed
        store = filled(sends("a", 1), sends("b", 2), sends("z", 60), text="sent<10") if order_changed else store


def test_a_filter_of_ages_is_asked_anew_with_any_news() -> None:
    store = filled(sends("a", 1, seen=HOUR - 1), sends("b", 2, seen=1), text="seen<1h")
    assert store.visible_ids == ["a", "b"]
    later = type(CLOCK)(CLOCK.now.replace(minute=1), CLOCK.active_window_s)
    store.put(sends("b", 2, seen=1))
    assert store.flush(later).order_changed
    assert store.visible_ids == ["b"]


def test_an_instance_is_found_where_it_stands() -> None:
    store = filled(sends("a", 2), sends("b", 1), sends("c", 99), text="sent<10")
    assert [store.index_of(name) for name in ("b", "a", "c", "nobody", None)] == [0, 1, None, None, None]


# What a flush says.


def test_a_flush_names_the_columns_in_which_an_instance_changed() -> None:
    store = filled(sends("a", 1), sends("b", 1))
    store.put(instance("a", 1, metrics={"sent": 2, "new": 0}, app_version="1.5"))
    assert store.flush(CLOCK).changed == {"a": {"metric:sent", "metric:new", "version"}}
    assert store.flush(CLOCK).changed == {}


def test_a_burst_on_one_instance_is_one_change_against_what_was_shown() -> None:
    store = filled(sends("a", 1))
    for sent in (2, 3, 1):
        store.put(sends("a", sent, environment="ci"))
    store.put(sends("a", 1, environment="ci"))
    assert store.flush(CLOCK).changed == {"a": {"environment"}}


def test_what_a_list_says_is_drawn_but_no_news() -> None:
    store = filled(sends("a", 1))
    store.put(sends("a", 2), highlight=False)
    store.put(sends("b", 2), highlight=False)
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
def test_a_change_is_named_by_its_column(before: Row | None, after: Row, changed: set[str]) -> None:
    assert changed_columns(before, after) == changed


def test_a_column_is_of_numbers_when_most_of_its_values_are() -> None:
    store = filled(sends("a", 1), sends("b", Decimal("0.5")), sends("c", "many"), instance("d", metrics={"flag": True}))
    assert set(numeric_keys(store)) == {"sent"}
    store.put(sends("b", "few"))
    store.flush(CLOCK)
    assert set(numeric_keys(store)) == set()


# Freezing.


def test_while_frozen_nothing_moves_and_instances_that_changed_are_counted() -> None:
    store = filled(sends("a", 1), sends("b", 2))
    store.is_paused = True
    for cursor in range(10, 20):
        store.put(sends("a", cursor))
    store.put(sends("c", 0))
    store.remove("b")
    flush = store.flush(CLOCK)
    assert (flush.changed, flush.order_changed, store.pending_count) == ({}, False, 3)
    assert (store.visible_ids, held(store)) == (["a", "b"], {"a": 1, "b": 2})
    store.is_paused = False
    store.flush(CLOCK)
    assert (store.pending_count, held(store)) == (0, {"a": 19, "c": 0})


def test_what_is_frozen_can_be_filtered_and_sorted() -> None:
    store = filled(sends("a", 1), sends("b", 2), sends("c", 3))
    store.is_paused = True
    store.put(sends("a", 9))
    store.filter, store.is_descending = parse_filter("sent<3"), True
    store.rebuild_order(CLOCK)
    assert store.visible_ids == ["b", "a"]


# Bounds.


def test_beyond_its_limit_and_some_slack_the_longest_unseen_go() -> None:
    store = sorted_by(SEEN, limit=10)
    for age in range(10 + EVICTION_SLACK):
        store.put(instance(f"i{age}", age))
    store.flush(CLOCK)
    assert len(store.visible_ids) == 10 + EVICTION_SLACK
    store.put(instance("never", None))
    store.flush(CLOCK)
    assert store.visible_ids == [f"i{age}" for age in range(10)]
    assert store.rows.keys() == set(store.visible_ids)


def test_the_longest_unseen_are_those_that_never_were() -> None:
    pending = row("p", None, first_seen_at=row(seen=5).instance.last_seen_at)
    assert (
        last_seen_ts(row("n", None))
        < last_seen_ts(row("o", 9 * DAY))
        < last_seen_ts(pending)
        < last_seen_ts(row("y", 1))
    )


def test_a_long_freeze_holds_no_more_than_could_be_shown_after_it() -> None:
    store = sorted_by(SENT, limit=10)
    store.put(sends("held", 1))
    store.flush(CLOCK)
    store.is_paused = True
    store.put(sends("held", 2))
    for number in range(5000):
        store.put(sends(f"i{number}", number, seen=5000 - number))
        store.remove(f"gone{number}")
    assert store.pending_count <= 2 * (10 + EVICTION_SLACK)
    store.is_paused = False
    store.flush(CLOCK)
    assert {f"i{number}" for number in range(4991, 5000)} <= store.rows.keys()


def test_forgetting_is_done_in_bulk() -> None:
    """Each time costs a look at all that waits, so it must not be once for each message."""
    store = sorted_by(SENT, limit=10)
    for number in range(10 + EVICTION_SLACK):
        store.put(sends(f"i{number}", 1))
    store.flush(CLOCK)
    store.is_paused = True
    for number in range(10 + EVICTION_SLACK):
        store.put(sends(f"i{number}", 2))
    before = store.pending_count
    for number in range(3 * EVICTION_SLACK):
        store.put(sends(f"stranger{number}", 1))
        assert store.pending_count == before + 1 or store.pending_count <= before + 1 - EVICTION_SLACK
        before = store.pending_count


def test_whoever_invents_new_keys_each_time_does_not_fill_the_memory() -> None:
    store = RowStore()
    for number in range(100):
        store.put(instance("a", metrics={f"k{number}": number}))
        store.flush(CLOCK)
    assert store.key_counts == store.numeric_counts == {"k99": 1}
