"""Metrics: what the words in their keys mean."""

import pytest

from shm.core import metric_keys


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("mem_mb", "system"),
        ("members", "business"),
        ("sys_anything", "system"),
        ("app_users", "system"),
        ("application_users", "business"),
        ("worker.heap", "system"),
        ("heaps_of_pizza", "business"),
        ("CPU-load", "system"),
        ("invoices_sent", "business"),
    ],
)
def test_a_key_is_system_when_it_begins_so_or_has_a_word_that_says_so(key: str, kind: str) -> None:
    assert metric_keys.naming(key).kind == kind


@pytest.mark.parametrize(
    ("key", "aggregate"),
    [
        ("invoices_sent", "sum"),
        ("cache_hit_rate", "avg"),
        ("disk_pct", "avg"),
        ("rated_items", "sum"),
        ("avg_wait_s", "avg"),
        ("sys_cpu_cores", "avg"),
        ("mem_mb", "avg"),
    ],
)
def test_numbers_are_summed_unless_their_words_say_that_a_sum_is_nonsense(key: str, aggregate: str) -> None:
    assert metric_keys.naming(key).aggregate == aggregate
