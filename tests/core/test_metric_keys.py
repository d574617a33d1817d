"""Metric keys: the kind, aggregate, label, unit and format that follow from their words."""

import pytest

from shm.core import metric_keys
from shm.core.metric_keys import MetricOverride


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
        ("cpuPercent", "system"),
        ("totalRSS", "system"),
        ("HTTPRequests", "business"),
        ("größe_mem", "system"),
        ("crèmem", "business"),
        ("invoices_sent", "business"),
    ],
)
def test_a_system_prefix_or_word_makes_a_key_a_system_metric(key: str, kind: str) -> None:
    assert metric_keys.describe(key).kind == kind


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
        ("errorRate", "avg"),
        ("avgLatencyMs", "avg"),
        ("p95Latency", "avg"),
        ("latency_p95", "avg"),
        ("latencyP99Ms", "avg"),
        ("p95th_street_orders", "sum"),
        ("max_latency_ms", "max"),
        ("queueMax", "max"),
        ("peak_sessions", "max"),
        ("maximilian_orders", "sum"),
        ("min_latency_ms", "min"),
        ("min", "min"),
        ("session_min", "sum"),
        ("avg_session_min", "avg"),
        ("median_order", "median"),
        ("medianOrderMax", "median"),
        ("max_error_rate", "max"),
        ("max_mem_mb", "avg"),
        ("separateOrders", "sum"),
    ],
)
def test_numbers_are_summed_unless_a_word_of_the_key_means_an_average(key: str, aggregate: str) -> None:
    assert metric_keys.describe(key).aggregate == aggregate


@pytest.mark.parametrize(
    ("key", "words", "label"),
    [
        ("mem_mb", "mem mb", "Mem mb"),
        ("mail.sent_total", "mail sent total", "Mail sent total"),
        ("members", "members", "Members"),
        ("cpuPercent", "cpu percent", "Cpu percent"),
        ("errorRate", "error rate", "Error rate"),
        ("avgLatencyMs", "avg latency ms", "Avg latency ms"),
        ("p95Latency", "p95 latency", "P95 latency"),
        ("HTTPRequests", "http requests", "HTTP requests"),
        ("totalOOMKills", "total oom kills", "Total OOM kills"),
        ("userIDs", "user ids", "User IDs"),
        ("APIv2Calls", "apiv2 calls", "APIv2 calls"),
        ("Größe/Tag", "größe tag", "Größe/Tag"),
        ("___", "", "___"),
        ("", "", ""),
    ],
)
def test_words_end_at_separators_and_changes_of_case(key: str, words: str, label: str) -> None:
    assert (" ".join(metric_keys.split_words(key)), metric_keys.make_label(key)) == (words, label)


@pytest.mark.parametrize(
    ("key", "unit", "number_format"),
    [
        ("invoices_sent", None, "number"),
        ("disk_pct", "%", "percent"),
        ("mem_mb", "MB", "bytes"),
        ("avgLatencyMs", "ms", "duration"),
        ("app_uptime_h", "h", "duration"),
        ("ms", None, "number"),
    ],
)
def test_unit_and_format_follow_from_the_last_of_several_words(key: str, unit: str | None, number_format: str) -> None:
    described = metric_keys.describe(key)
    assert (described.unit, described.format) == (unit, number_format)


def test_the_format_follows_from_an_overridden_unit() -> None:
    assert metric_keys.describe("n", MetricOverride(unit="GB")).format == "bytes"
    assert metric_keys.describe("mem_mb", MetricOverride(unit="EUR")).format == "number"
    assert (metric_keys.describe("mem_mb", MetricOverride(unit="")).unit, metric_keys.describe("mem_mb").unit) == (
        None,
        "MB",
    )


def test_a_common_override_has_the_fields_on_which_all_agree() -> None:
    euros, pounds = (
        MetricOverride(unit="EUR", label="Revenue"),
        MetricOverride(unit="GBP", label="Revenue", hidden=True),
    )
    assert metric_keys.common_override([euros, pounds]) == MetricOverride(label="Revenue")
    assert metric_keys.common_override([]) == MetricOverride()
    assert metric_keys.common_aggregate("n", [MetricOverride(), MetricOverride(aggregate="sum")]) == "sum"
    assert metric_keys.common_aggregate("n", [MetricOverride(), MetricOverride(aggregate="avg")]) is None
