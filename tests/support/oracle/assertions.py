"""Compares each figure in a server's responses with the oracle.

A response is fetched again if time alone changes a figure between the fetch and the read of the database.
"""

import atexit
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from packaging.version import Version

from shm.core.aggregates import Aggregate
from tests.support import plain_http
from tests.support.oracle import raw as rows
from tests.support.oracle import truth
from tests.support.oracle.raw import Instance, Raw
from tests.support.oracle.truth import ACTIVITY_WINDOWS, MAX_VALUES, WINDOW, MetricValues
from tests.support.server_process import ServerProcess

PERIODS = ("24h", "7d", "30d", "3m", "1y", "all")
MAX_POINTS = 400
EARLIER_POINTS = 60  # checked before the first point of `all`
MAX_MEAN_ERROR = Fraction(1, 10**19)  # of a mean, relative to it
MAX_ATTEMPTS = 5  # until no figure changes by time alone during a comparison
CACHE_TIMEOUT_S = 65.0  # longer than a server caches a response that is slow to compute

HISTOGRAM_KEY = "sent"  # which most random fleets have, with any value
PAST_DAYS = (0, 1, 9, 31)  # before today: a day that may not be closed, closed ones, and one before most fleets

# Filters by their query, and which instances they select.
FILTERS: dict[str, Callable[[Raw, Instance], bool]] = {
    "environment=production": lambda _, instance: instance.environment == "production",
    "status=active&where=-env%3Ddev&counted=true": lambda _, instance: (
        instance.status == "active" and instance.environment.lower() != "dev"
    ),
    "version=1.0": lambda _, instance: truth.release(instance.app_version) == Version("1.0"),
}

_client = plain_http.Client(timeout=60)
atexit.register(_client.close)

Json = Any


class Now(NamedTuple):
    """The raw rows, the time at which they were read, and the active window."""

    raw: Raw
    at: datetime
    window: timedelta


def fetch(server: ServerProcess, path: str) -> Json:
    """GET below `/api/v1/admin/`. Numbers keep all digits."""
    response = _client.get(f"{server.url}/api/v1/admin/{path}", headers=server.headers).raise_for_status()
    return json.loads(response.text, parse_float=Decimal, parse_int=Decimal)


def assert_matches_oracle(
    server: ServerProcess, database: str, slug: str | None = None, window: timedelta = WINDOW
) -> None:
    """Compares all current figures of an application, or of each application and of all of them together."""
    comparison = OracleComparison(server, database, window)
    for each in comparison.slugs(slug):
        comparison.compare(f"applications/{each}/kpis?counted=false", partial(assert_kpis, slug=each))
        comparison.compare(f"applications/{each}/kpis?counted=true", partial(assert_kpis, slug=each, counted_only=True))
        for query, selects in FILTERS.items():
            check = partial(assert_kpis, slug=each, counted_only="counted=true" in query, selects=selects)
            comparison.compare(f"applications/{each}/kpis?{query}", check)
        comparison.compare(
            f"applications/{each}/histogram?metric={HISTOGRAM_KEY}", partial(assert_histogram, slug=each)
        )
        comparison.compare(f"metrics/{each}", partial(assert_current_values, slug=each))
        comparison.compare(f"applications/{each}/versions", partial(assert_versions, slug=each))
    if slug is None:
        comparison.compare("stats", assert_stats)
        comparison.compare("applications?limit=1000", assert_applications)


def assert_series_match_oracle(
    server: ServerProcess,
    database: str,
    slug: str | None = None,
    window: timedelta = WINDOW,
    periods: Sequence[str] = PERIODS,
) -> None:
    """Compares all series of an application or of each after a complete rollup, also of keys that no install sends."""
    comparison = OracleComparison(server, database, window)
    for each in comparison.slugs(slug):
        for period in periods:
            comparison.compare(f"metrics/{each}?period={period}", partial(assert_series, slug=each))
        for days in PAST_DAYS:
            midnight = (datetime.now(UTC) - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
            check_past = partial(assert_past_kpis, slug=each, at=midnight)
            comparison.compare(f"applications/{each}/kpis?at={midnight.date()}", check_past)
        snapshots = rows.read_raw(database).snapshots.values()
        all_keys = sorted({key for known in snapshots for snapshot in known for key in snapshot.leaves})
        if all_keys:
            query = f"period=all&keys={','.join(all_keys)}"
            comparison.compare(f"metrics/{each}?{query}", partial(assert_series, slug=each, requested=all_keys))


@dataclass(frozen=True)
class OracleComparison:
    """Compares responses of a server with the state of its database at the same time."""

    server: ServerProcess
    database: str
    window: timedelta

    def slugs(self, slug: str | None) -> list[str]:
        """This slug, or those of all applications."""
        return list(rows.read_raw(self.database).applications) if slug is None else [slug]

    def compare(self, path: str, check: Callable[[Json, Now], None]) -> None:
        """Compares a response. Repeats the comparison while the response may be a cached one."""
        deadline = time.monotonic() + CACHE_TIMEOUT_S
        while True:
            response, now = self._fetch(path)
            try:
                check(response, now)
            except AssertionError:
                if not (_may_be_cached(now.raw) or "/histogram?" in path) or time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def _fetch(self, path: str) -> tuple[Json, Now]:
        for _ in range(MAX_ATTEMPTS):
            before = datetime.now(UTC)
            response = fetch(self.server, path)
            now = datetime.now(UTC)
            raw = rows.read_raw(self.database)
            full_hour = now.replace(minute=0, second=0, microsecond=0)
            if not any(before <= at <= now for at in [full_hour, *truth.changes(raw, self.window)]):
                return response, Now(raw, now, self.window)
        raise AssertionError("a figure changed by time alone during each attempt")


def assert_kpis(
    response: Json,
    now: Now,
    slug: str,
    *,
    counted_only: bool = False,
    selects: Callable[[Raw, Instance], bool] = lambda *_: True,
) -> None:
    """`GET applications/{slug}/kpis`, over the instances that a filter selects."""
    whole, shown = now.raw, _is_visible(now.raw, slug)
    raw = replace(whole, instances={key: each for key, each in whole.instances.items() if selects(whole, each)})
    current = list(truth.reporting(raw, now.at, now.window, slug, counted_only=counted_only))
    figures = MetricValues.of(current)
    assert response["instances"] == truth.counts(raw, now.at, now.window, slug)
    assert response["reporting"] == len(current)
    assert {kpi["key"] for kpi in response["kpis"]} == set(filter(shown, figures.numbers))
    for kpi in response["kpis"]:
        values = figures.numbers[kpi["key"]]
        assert kpi["kind"] == truth.kind(kpi["key"], raw, slug)
        assert kpi["aggregate"] == truth.aggregate(kpi["key"], raw, slug)
        assert kpi["instances"] == len(values)
        assert (kpi["min"], kpi["max"]) == (min(values), max(values))
        assert Fraction(kpi["p50"]) == figures.percentile(kpi["key"], Fraction(1, 2))
        assert Fraction(kpi["p90"]) == figures.percentile(kpi["key"], Fraction(9, 10))
        _assert_value(kpi["value"], figures, kpi["key"], kpi["aggregate"])
    assert {flag["key"]: (flag["true"], flag["instances"]) for flag in response["flags"]} == {
        key: (sum(values), len(values)) for key, values in figures.flags.items() if shown(key)
    }
    assert {each["key"]: each for each in map(_category, response["categories"])} == {
        key: _expected_category(key, values) for key, values in figures.categories.items() if shown(key)
    }


def assert_histogram(response: Json, now: Now, slug: str) -> None:
    """`GET applications/{slug}/histogram`: exact counts and percentiles, each value in one bucket."""
    figures = MetricValues.of(truth.reporting(*now, slug))
    is_hidden = truth.is_hidden(response["metric"], now.raw, slug)
    values = [] if is_hidden else figures.numbers.get(response["metric"], [])
    assert response["instances"] == len(values)
    assert (response["min"], response["max"]) == (min(values, default=None), max(values, default=None))
    buckets = response["buckets"]
    for bucket in buckets:
        assert bucket["instances"] == sum(bucket["lower"] <= value < bucket["upper"] for value in values)
    assert [bucket["upper"] for bucket in buckets[:-1]] == [bucket["lower"] for bucket in buckets[1:]]
    assert sum(bucket["instances"] for bucket in buckets) == len(values)
    for name, value in (response["percentiles"] or {}).items():
        assert Fraction(value) == figures.percentile(response["metric"], Fraction(int(name[1:]), 100))
    assert bool(values) == (response["percentiles"] is not None)


def assert_past_kpis(response: Json, now: Now, slug: str, at: datetime) -> None:
    """`GET applications/{slug}/kpis?at=`: numbers and flags as they were at a midnight."""
    raw, shown = now.raw, _is_visible(now.raw, slug)
    current = list(truth.reporting_then(raw, slug, at, now.window))
    figures = MetricValues.of(current)
    assert datetime.fromisoformat(response["as_of"]) == at
    assert (response["instances"], response["categories"], response["reporting"]) == (None, None, len(current))
    assert {kpi["key"]: kpi["instances"] for kpi in response["kpis"]} == {
        key: len(values) for key, values in figures.numbers.items() if shown(key)
    }
    for kpi in response["kpis"]:
        assert kpi["aggregate"] == truth.aggregate(kpi["key"], raw, slug)
        _assert_value(kpi["value"], figures, kpi["key"], kpi["aggregate"], at)
    assert {flag["key"]: (flag["true"], flag["instances"]) for flag in response["flags"]} == {
        key: (sum(values), len(values)) for key, values in figures.flags.items() if shown(key)
    }


def assert_current_values(response: Json, now: Now, slug: str) -> None:
    """The last value of each series of `GET metrics/{app}`: what the KPIs read."""
    shown = _is_visible(now.raw, slug)
    figures = MetricValues.of(truth.reporting(*now, slug))
    numbers, flags = set(filter(shown, figures.numbers)), set(filter(shown, figures.flags))
    assert numbers <= response["metrics"].keys() <= numbers | flags  # a key that is a flag now may have been a number
    assert flags <= response["flags"].keys() <= numbers | flags
    _assert_point(response, -1, figures, now.raw, slug)


def assert_versions(response: Json, now: Now, slug: str) -> None:
    """The current counts of `GET applications/{slug}/versions`. A release has its most frequent spelling."""
    groups: dict[Version | str, Counter[str]] = {}
    for version, instances in truth.running(*now, slug).items():
        groups.setdefault(truth.release(version) or version, Counter())[version] = instances
    label = {each: min(found, key=lambda version: (-found[version], version)) for each, found in groups.items()}
    current = {version: values[-1] for version, values in response["versions"].items() if values[-1]}
    assert current == {label[each]: found.total() for each, found in groups.items()}
    assert response["total"][-1] == (sum(current.values()) or None)
    shown = [truth.release(version) for version in response["versions"]]
    releases = [each for each in shown if each is not None]
    assert shown == [None] * shown.count(None) + sorted(releases)
    known = sorted(each for each in groups if isinstance(each, Version))
    latest = max(known, key=lambda each: (not each.is_prerelease, each), default=None)
    assert response["latest"] == (None if latest is None else label[latest])
    assert response["on_latest"] == (0 if latest is None else groups[latest].total())
    behind = {each["version"]: (each["instances"], each["releases_behind"]) for each in response["behind"]}
    up_to_latest = [each for each in known if latest is not None and each <= latest]
    later = {each: sum(isinstance(each, str) or other > each for other in up_to_latest) for each in groups}
    assert behind == {label[each]: (groups[each].total(), count) for each, count in later.items() if count}


def assert_series(response: Json, now: Now, slug: str, requested: Sequence[str] = ()) -> None:
    """`GET metrics/{app}` at each timestamp. Before the first one of `all` there was no value."""
    raw, reported = now.raw, {*response["metrics"], *response["flags"]}
    timestamps = [datetime.fromisoformat(at) for at in response["timestamps"]]
    assert 2 <= len(timestamps) <= MAX_POINTS
    assert timestamps == sorted(set(timestamps))
    assert abs(timestamps[-1] - now.at) < timedelta(minutes=1)
    assert response["running_since"] == response["timestamps"][-2]
    for values in [*response["metrics"].values(), *response["instances"].values(), *_lists(response["flags"])]:
        assert len(values) == len(timestamps)
    assert response["metrics"].keys() == response["instances"].keys()
    assert all(map(_is_visible(raw, slug), reported))
    for index, at in enumerate(timestamps[:-1]):
        figures = MetricValues.of(truth.reporting_then(raw, slug, at, now.window))
        known = {*figures.numbers, *figures.flags} & set(requested)
        assert set(filter(_is_visible(raw, slug), known)) <= reported
        _assert_point(response, index, figures, raw, slug)
    _assert_point(response, -1, MetricValues.of(truth.reporting(*now, slug)), raw, slug)
    if response["period"] == "all" and 2 < len(timestamps) < MAX_POINTS:
        for steps in range(1, EARLIER_POINTS):
            earlier = timestamps[0] - steps * (timestamps[1] - timestamps[0])
            figures = MetricValues.of(truth.reporting_then(raw, slug, earlier, now.window))
            assert not reported & {*figures.numbers, *figures.flags}


def assert_stats(response: Json, now: Now) -> None:
    """`GET stats`."""
    raw, expected = now.raw, truth.global_numbers(*now)
    assert response["global_metrics"].keys() == expected.keys()
    for key, (aggregate, values) in expected.items():
        _assert_value(response["global_metrics"][key], MetricValues({key: values}), key, aggregate)
    counts = truth.counts(*now)
    assert {name: response[f"{name}_instances"] for name in counts} == counts
    for name, window in ACTIVITY_WINDOWS.items():
        assert response[name] == sum(truth.is_active(each, now.at, window) for each in raw.instances.values()), name
    assert response["new_this_week"] == truth.new_this_week(raw, now.at)
    members = Counter(each.app_slug for each in raw.instances.values() if not truth.is_unproven(each))
    names = {slug: each.name for slug, each in raw.applications.items() if members[slug]}
    assert response["per_app_counts"] == {name: members[slug] for slug, name in names.items()}


def assert_applications(response: Json, now: Now) -> None:
    """The counts of `GET applications`."""
    assert {each["slug"]: each["instances"] for each in response} == {
        slug: truth.counts(*now, slug) for slug in now.raw.applications
    }


def _may_be_cached(raw: Raw) -> bool:
    """Whether charts have values that are computed from raw snapshots, and are cached therefore."""
    overrides = [override for each in raw.applications.values() for override in each.overrides.values()]
    return any(override.get("aggregate") not in (None, "sum", "avg") for override in overrides)


def _assert_point(response: Json, index: int, figures: MetricValues, raw: Raw, slug: str) -> None:
    at = response["timestamps"][index]
    for key, values in response["metrics"].items():
        known = figures.numbers.get(key, [])
        assert response["instances"][key][index] == (len(known) or None), (key, at)
        if not known:
            assert values[index] is None, (key, at)
        else:
            _assert_value(values[index], figures, key, truth.aggregate(key, raw, slug), at)
    for key, flag in response["flags"].items():
        flags = figures.flags.get(key, [])
        expected = (sum(flags), len(flags)) if flags else (None, None)
        assert (flag["true"][index], flag["instances"][index]) == expected, (key, at)


def _assert_value(
    response: Decimal | None, figures: MetricValues, key: str, aggregate: Aggregate, where: object = None
) -> None:
    exact = figures.aggregated(key, aggregate)
    assert response is not None, (key, where)
    error = abs(Fraction(response) - exact)
    assert error <= (abs(exact) * MAX_MEAN_ERROR if aggregate == "avg" else 0), (key, response, exact, where)


def _category(response: Json) -> Json:
    values = [(each["value"], each["instances"]) for each in response["values"]]
    return {"key": response["key"], "values": values, "other": response["other"], "instances": response["instances"]}


def _expected_category(key: str, values: Counter[str]) -> Json:
    ranked = sorted(values.items(), key=lambda each: (-each[1], each[0]))
    other = sum(instances for _, instances in ranked[MAX_VALUES:])
    return {"key": key, "values": ranked[:MAX_VALUES], "other": other, "instances": values.total()}


def _is_visible(raw: Raw, slug: str) -> Callable[[str], bool]:
    return lambda key: not truth.is_hidden(key, raw, slug)


def _lists(flags: Json) -> list[list[Decimal | None]]:
    return [values for flag in flags.values() for values in (flag["true"], flag["instances"])]
