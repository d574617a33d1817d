"""Names and metrics: what their words mean."""

import pytest

from shm import metrics, names


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Ledger", "ledger"),
        ("Café Ledger", "cafe-ledger"),
        ("  My -- App!! 2.0 ", "my-app-2-0"),
        ("Straße", "strasse"),
        ("Приложение", "prilozhenie"),
        ("日本", "riben"),
    ],
)
def test_a_slug_is_readable_ascii(name: str, slug: str) -> None:
    assert names.slug(name) == slug


def test_names_with_nothing_left_get_slugs_of_their_own() -> None:
    first, second = names.slug("!!!"), names.slug("???")
    assert first.startswith("app-")
    assert len(first) == len("app-") + 8
    assert first != second


def test_long_names_that_begin_alike_do_not_share_a_slug() -> None:
    first, second = names.slug("a" * 200 + "1"), names.slug("a" * 200 + "2")
    assert first != second
    assert max(len(first), len(second)) <= names.LONGEST_SLUG


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
    assert metrics.naming(key).kind == kind


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
    assert metrics.naming(key).aggregate == aggregate
