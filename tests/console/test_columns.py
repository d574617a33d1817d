"""The columns: their order, the texts of their cells, and their sort keys."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_client import MetricKey
from shm_tui.model.columns import (
    FIXED_COLUMNS,
    HOST_FIRST_WIDTH,
    METRIC_PREFIX,
    MISSING,
    VERSION,
    Column,
    Pinning,
    build_columns,
    metric_column,
    value_sort_key,
)
from shm_tui.model.row import format_value
from shm_tui.text.formatting import DAY, UNKNOWN
from tests.support.console_rows import CLOCK, row

BY_ID = {column.id: column for column in FIXED_COLUMNS}
values = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text() | st.lists(st.integers())


def column_ids(key_counts: dict[str, int], width: int = 100, one_application: bool = True, **options: Any) -> list[str]:
    """The IDs of the columns for numeric metrics."""
    arguments: dict[str, Any] = {"numeric": key_counts, "descriptions": MetricDescriptions()} | options
    return [
        column.id for column in build_columns(key_counts, **arguments, one_application=one_application, width=width)
    ]


class MetricDescriptions(dict[str, MetricKey]):
    """Descriptions by key; any other key is a business metric that is summed."""

    def __missing__(self, key: str) -> MetricKey:
        return MetricKey(key, key, aggregate="sum")


def metric_ids(key_counts: dict[str, int], **options: Any) -> list[str]:
    """The keys of the metric columns."""
    return [
        name.removeprefix(METRIC_PREFIX) for name in column_ids(key_counts, **options) if name.startswith(METRIC_PREFIX)
    ]


def cell_text(column: Column, **instance: Any) -> str:
    """The text of a column for an instance."""
    return column.text(row(**instance), CLOCK)


def test_business_metrics_and_sums_come_first() -> None:
    key_counts = dict.fromkeys(("a_mean", "a_system_one", "invoices"), 3)
    mean = MetricKey("a_mean", "A mean", aggregate="avg")
    system = MetricKey("a_system_one", "System", kind="system", aggregate="avg")
    descriptions = MetricDescriptions(a_mean=mean, a_system_one=system)
    assert metric_ids(key_counts, descriptions=descriptions) == ["invoices", "a_mean", "a_system_one"]


def test_a_hidden_key_has_no_column() -> None:
    descriptions = MetricDescriptions(secret=MetricKey("secret", "Secret", hidden=True))
    assert metric_ids({"secret": 9, "sent": 1}, descriptions=descriptions) == ["sent"]


def test_frequent_metrics_come_first_and_numbers_before_texts() -> None:
    assert metric_ids({"rare": 1, "edition": 60, "sent": 60}, numeric={"rare", "sent"}) == ["sent", "edition", "rare"]


def test_small_changes_of_frequency_do_not_reorder_columns() -> None:
    for first, second in [(100, 101), (101, 100), (127, 64), (64, 127)]:
        assert metric_ids({"a": first, "b": second}) == ["a", "b"]


def test_the_order_of_columns_by_width() -> None:
    """Pinned columns are at the edges. The host's columns come before the metrics on a wide screen only."""
    machine = ["os", "environment", "mode"]
    assert column_ids({"sent": 1}) == ["state", "instance", "version", f"{METRIC_PREFIX}sent", *machine, "seen"]
    assert column_ids({"sent": 1}, HOST_FIRST_WIDTH) == [
        "state",
        "instance",
        "version",
        *machine,
        f"{METRIC_PREFIX}sent",
        "seen",
    ]
    assert column_ids({}, one_application=False) == ["state", "instance", "application", "version", *machine, "seen"]
    columns = build_columns({"sent": 1}, ["sent"], MetricDescriptions(), one_application=True, width=100)
    pinnings = [column.pinning for column in columns]
    assert pinnings == sorted(pinnings, key=list(Pinning).index)


def test_a_metric_named_like_a_fixed_column_is_another_column() -> None:
    key_counts = dict.fromkeys(BY_ID, 1)
    names = column_ids(key_counts, one_application=False)
    assert len(names) == len(set(names)) == 2 * len(FIXED_COLUMNS)
    sent = {"app_version": "1.4.0", "metrics": {"version": 7}}
    assert cell_text(VERSION, **sent) == "1.4.0"
    assert cell_text(metric_column("version", "version", True), **sent) == "7"


def test_a_label_comes_from_the_description() -> None:
    descriptions = MetricDescriptions(c=MetricKey("c", "Cats"))
    columns = build_columns({"a_b": 1, "c": 1}, [], descriptions, one_application=True, width=80)
    assert {"a_b", "Cats"} <= {column.label for column in columns}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, UNKNOWN),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (45_721, "45.7k"),
        (Decimal("0.50"), "0.500"),
        ("postgres", "postgres"),
        ([], "[0]"),
        ([1, 2, 3], "[3]"),
    ],
)
def test_a_cell_shows_the_short_form_of_a_value(value: Any, text: str) -> None:
    assert format_value(value) == text
    assert cell_text(metric_column("k", "k", True), metrics={"k": value}) == text


def test_a_missing_metric_is_unknown_and_not_zero() -> None:
    column = metric_column("k", "k", True)
    assert cell_text(column) == UNKNOWN
    assert column.sort_key(row(), CLOCK) == MISSING


def test_the_fixed_cells() -> None:
    name = "0f4c1e7a-1111-4222-8333-444455556666"
    attributes: dict[str, Any] = {
        "name": name,
        "seen": 5 * DAY,
        "app_name": "Ledger",
        "app_version": "1.4.0",
        "environment": "production",
        "deployment_mode": "docker",
        "os_arch": "linux/amd64",
    }
    cells = {column.id: cell_text(column, **attributes) for column in FIXED_COLUMNS}
    assert cells == {
        "state": "●",
        "instance": "0f4c1e7a",
        "application": "Ledger",
        "version": "1.4.0",
        "os": "linux/amd64",
        "environment": "production",
        "mode": "docker",
        "seen": "5d",
    }


def test_every_cell_of_an_empty_instance_renders_and_sorts() -> None:
    empty = row("", None, app_version="", metrics={})
    assert [column.text(empty, CLOCK) for column in FIXED_COLUMNS] == ["○", "", "", "", "", "", "", UNKNOWN]
    without_sort_key = {column.id for column in FIXED_COLUMNS if column.sort_key(empty, CLOCK) == MISSING}
    assert without_sort_key == {"application", "version", "os", "environment", "mode", "seen"}


def test_versions_sort_by_the_servers_rank_and_then_by_their_spelling() -> None:
    ranked = [("2", "1.9"), ("10", "1.10"), ("2", "v1.9"), ("", ""), ("1", "z")]
    keys = [VERSION.sort_key(row(app_version=version, version_rank=rank), CLOCK) for rank, version in ranked]
    assert keys == [(3, "2", "1.9"), (3, "10", "1.10"), (3, "2", "v1.9"), MISSING, (3, "1", "z")]


@given(st.lists(values, max_size=10))
def test_values_of_any_types_can_be_sorted_together(mixed: list[Any]) -> None:
    assert len(sorted(map(value_sort_key, mixed))) == len(mixed)


@pytest.mark.parametrize("value", [None, "x" * 65, [], [1]])
def test_a_value_without_a_place_in_an_order_sorts_as_missing(value: Any) -> None:
    assert value_sort_key(value) == MISSING


def test_the_order_of_types_is_that_of_the_servers_lists() -> None:
    ordered: list[Any] = [-1, 2, Decimal("2.5"), False, True, "", "B", "a", "x" * 64, "é"]
    keys = [value_sort_key(value) for value in ordered]
    assert keys == sorted(keys)
