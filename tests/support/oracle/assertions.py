"""Holds a server's answers to the truth, figure by figure.

A figure that time itself changes while we ask is asked for again, so a comparison never hangs on the clock.
"""

import atexit
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from tests.support.oracle.raw import Raw
from tests.support.oracle.truth import LAPSES, MOST_VALUES, WINDOW, Figures
from tests.support.server_process import ServerProcess

PERIODS = ("24h", "7d", "30d", "3m", "1y", "all")
MOST_POINTS = 400
STEPS_BEFORE = 60  # that are looked at before the first moment of `all`
MEAN_ERROR = Fraction(1, 10**19)  # of a mean, relative to it
TRIES = 5  # until no moment falls into the asking at which a figure changes by itself
KEPT_S = 65.0  # longer than a server keeps an answer that takes long to compute

_client = plain_http.Client(timeout=30)
atexit.register(_client.close)

Json = Any


class Now(NamedTuple):
    """What is known, at which moment, and the active window."""

    raw: Raw
    at: datetime
    window: timedelta


def ask(server: ServerProcess, path: str) -> Json:
    """GET below `/api/v1/admin/`, numbers with all their digits."""
    answer = _client.get(f"{server.url}/api/v1/admin/{path}", headers=server.headers).raise_for_status()
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def assert_matches_oracle(
    server: ServerProcess, database: str, slug: str | None = None, window: timedelta = WINDOW
) -> None:
    """Everything that is told of now, of an application, or of each and of all of them together."""
    asking = Asking(server, database, window)
    for each in asking.slugs(slug):
        asking.hold(f"applications/{each}/kpis?counted=false", partial(hold_kpis, slug=each))
        asking.hold(f"applications/{each}/kpis?counted=true", partial(hold_kpis, slug=each, counted_only=True))
        asking.hold(f"metrics/{each}", partial(hold_now, slug=each))
        asking.hold(f"applications/{each}/versions", partial(hold_versions, slug=each))
    if slug is None:
        asking.hold("stats", hold_stats)
        asking.hold("applications?limit=1000", hold_applications)


def assert_series_match_oracle(
    server: ServerProcess,
    database: str,
    slug: str | None = None,
    window: timedelta = WINDOW,
    periods: Sequence[str] = PERIODS,
) -> None:
    """Every series, of an application or of each, once all snapshots are rolled up; also of keys that are no more."""
    asking = Asking(server, database, window)
    for each in asking.slugs(slug):
        for period in periods:
            asking.hold(f"metrics/{each}?period={period}", partial(hold_series, slug=each))
        ever = sorted(
            {key for known in rows.read_raw(database).snapshots.values() for one in known for key in one.leaves}
        )
        if ever:
            query = f"period=all&keys={','.join(ever)}"
            asking.hold(f"metrics/{each}?{query}", partial(hold_series, slug=each, asked_for=ever))


@dataclass(frozen=True)
class Asking:
    """Asks a server, and compares with what its database knows at that moment."""

    server: ServerProcess
    database: str
    window: timedelta

    def slugs(self, slug: str | None) -> list[str]:
        """That one, or all."""
        return list(rows.read_raw(self.database).applications) if slug is None else [slug]

    def hold(self, path: str, compare: Callable[[Json, Now], None]) -> None:
        """Compares an answer; once more where it was one that servers keep for a while."""
        deadline = time.monotonic() + KEPT_S
        while True:
            said, now = self._asked(path)
            try:
                compare(said, now)
            except AssertionError:
                if not _is_kept(now.raw) or time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def _asked(self, path: str) -> tuple[Json, Now]:
        for _ in range(TRIES):
            before = datetime.now(UTC)
            said = ask(self.server, path)
            now = datetime.now(UTC)
            raw = rows.read_raw(self.database)
            full_hour = now.replace(minute=0, second=0, microsecond=0)
            if not any(before <= at <= now for at in [full_hour, *truth.changes(raw, self.window)]):
                return said, Now(raw, now, self.window)
        raise AssertionError("time changes the figures as often as we ask")


def hold_kpis(said: Json, now: Now, slug: str, *, counted_only: bool = False) -> None:
    """`GET applications/{slug}/kpis`."""
    raw, shown = now.raw, _shown(now.raw, slug)
    figures = Figures.of(truth.reporting(*now, slug, counted_only=counted_only))
    assert said["instances"] == truth.counts(*now, slug)
    assert {kpi["key"] for kpi in said["kpis"]} == set(filter(shown, figures.numbers))
    for kpi in said["kpis"]:
        values = figures.numbers[kpi["key"]]
        assert kpi["kind"] == truth.kind(kpi["key"], raw, slug)
        assert kpi["aggregate"] == truth.aggregate(kpi["key"], raw, slug)
        assert kpi["instances"] == len(values)
        assert (kpi["min"], kpi["max"]) == (min(values), max(values))
        assert Fraction(kpi["p50"]) == figures.percentile(kpi["key"], Fraction(1, 2))
        assert Fraction(kpi["p90"]) == figures.percentile(kpi["key"], Fraction(9, 10))
        _hold_value(kpi["value"], figures, kpi["key"], kpi["aggregate"])
    assert {flag["key"]: (flag["true"], flag["instances"]) for flag in said["flags"]} == {
        key: (sum(values), len(values)) for key, values in figures.flags.items() if shown(key)
    }
    assert {each["key"]: each for each in map(_category, said["categories"])} == {
        key: _expected_category(key, values) for key, values in figures.categories.items() if shown(key)
    }


def hold_now(said: Json, now: Now, slug: str) -> None:
    """The last value of each series of `GET metrics/{app}`: what the KPIs read."""
    shown = _shown(now.raw, slug)
    figures = Figures.of(truth.reporting(*now, slug))
    numbers, flags = set(filter(shown, figures.numbers)), set(filter(shown, figures.flags))
    assert numbers <= said["metrics"].keys() <= numbers | flags  # what is a flag now was a number once
    assert flags <= said["flags"].keys() <= numbers | flags
    _hold_point(said, -1, figures, now.raw, slug)


def hold_versions(said: Json, now: Now, slug: str) -> None:
    """What runs now by `GET applications/{slug}/versions`: spellings of a release are one, under the most frequent."""
    groups: dict[Version | str, Counter[str]] = {}
    for version, instances in truth.running(*now, slug).items():
        groups.setdefault(truth.release(version) or version, Counter())[version] = instances
    label = {each: min(found, key=lambda version: (-found[version], version)) for each, found in groups.items()}
    now_shown = {version: values[-1] for version, values in said["versions"].items() if values[-1]}
    assert now_shown == {label[each]: found.total() for each, found in groups.items()}
    assert said["total"][-1] == (sum(now_shown.values()) or None)
    shown = [truth.release(version) for version in said["versions"]]
    releases = [each for each in shown if each is not None]
    assert shown == [None] * shown.count(None) + sorted(releases)
    known = sorted(each for each in groups if isinstance(each, Version))
    latest = max(known, key=lambda each: (not each.is_prerelease, each), default=None)
    assert said["latest"] == (None if latest is None else label[latest])
    assert said["on_latest"] == (0 if latest is None else groups[latest].total())
    behind = {each["version"]: (each["instances"], each["releases_behind"]) for each in said["behind"]}
    up_to_latest = [each for each in known if latest is not None and each <= latest]
    later = {each: sum(isinstance(each, str) or other > each for other in up_to_latest) for each in groups}
    assert behind == {label[each]: (groups[each].total(), count) for each, count in later.items() if count}


def hold_series(said: Json, now: Now, slug: str, asked_for: Sequence[str] = ()) -> None:
    """`GET metrics/{app}`, at each of its moments; before the first one of `all` nothing was known."""
    raw, told = now.raw, {*said["metrics"], *said["flags"]}
    moments = [datetime.fromisoformat(at) for at in said["timestamps"]]
    assert 2 <= len(moments) <= MOST_POINTS
    assert moments == sorted(set(moments))
    assert abs(moments[-1] - now.at) < timedelta(minutes=1)
    assert said["running_since"] == said["timestamps"][-2]
    for values in [*said["metrics"].values(), *said["instances"].values(), *_lists(said["flags"])]:
        assert len(values) == len(moments)
    assert said["metrics"].keys() == said["instances"].keys()
    assert all(map(_shown(raw, slug), told))
    for place, at in enumerate(moments[:-1]):
        figures = Figures.of(truth.reporting_then(raw, slug, at, now.window))
        known = {*figures.numbers, *figures.flags} & set(asked_for)
        assert set(filter(_shown(raw, slug), known)) <= told
        _hold_point(said, place, figures, raw, slug)
    _hold_point(said, -1, Figures.of(truth.reporting(*now, slug)), raw, slug)
    if said["period"] == "all" and 2 < len(moments) < MOST_POINTS:
        for back in range(1, STEPS_BEFORE):
            earlier = moments[0] - back * (moments[1] - moments[0])
            figures = Figures.of(truth.reporting_then(raw, slug, earlier, now.window))
            assert not told & {*figures.numbers, *figures.flags}


def hold_stats(said: Json, now: Now) -> None:
    """`GET stats`."""
    raw, expected = now.raw, truth.global_numbers(*now)
    assert said["global_metrics"].keys() == expected.keys()
    for key, (aggregate, values) in expected.items():
        _hold_value(said["global_metrics"][key], Figures({key: values}), key, aggregate)
    counts = truth.counts(*now)
    assert {name: said[f"{name}_instances"] for name in counts} == counts
    for name, lapse in LAPSES.items():
        assert said[name] == sum(truth.is_active(each, now.at, lapse) for each in raw.instances.values()), name
    assert said["new_this_week"] == truth.new_this_week(raw, now.at)
    members = Counter(instance.app_slug for instance in raw.instances.values())
    names = {slug: each.name for slug, each in raw.applications.items() if members[slug]}
    assert said["per_app_counts"] == {name: members[slug] for slug, name in names.items()}


def hold_applications(said: Json, now: Now) -> None:
    """The counts of `GET applications`."""
    assert {each["slug"]: each["instances"] for each in said} == {
        slug: truth.counts(*now, slug) for slug in now.raw.applications
    }


def _is_kept(raw: Raw) -> bool:
    """Whether charts tell what has to be computed from raw snapshots, and is kept for a while."""
    said = [override for each in raw.applications.values() for override in each.overrides.values()]
    return any(override.get("aggregate") not in (None, "sum", "avg") for override in said)


def _hold_point(said: Json, place: int, figures: Figures, raw: Raw, slug: str) -> None:
    at = said["timestamps"][place]
    for key, values in said["metrics"].items():
        known = figures.numbers.get(key, [])
        assert said["instances"][key][place] == (len(known) or None), (key, at)
        if not known:
            assert values[place] is None, (key, at)
        else:
            _hold_value(values[place], figures, key, truth.aggregate(key, raw, slug), at)
    for key, flag in said["flags"].items():
        answers = figures.flags.get(key, [])
        expected = (sum(answers), len(answers)) if answers else (None, None)
        assert (flag["true"][place], flag["instances"][place]) == expected, (key, at)


def _hold_value(said: Decimal | None, figures: Figures, key: str, aggregate: Aggregate, where: object = None) -> None:
    exact = figures.aggregated(key, aggregate)
    assert said is not None, (key, where)
    error = abs(Fraction(said) - exact)
    assert error <= (abs(exact) * MEAN_ERROR if aggregate == "avg" else 0), (key, said, exact, where)


def _category(said: Json) -> Json:
    values = [(each["value"], each["instances"]) for each in said["values"]]
    return {"key": said["key"], "values": values, "other": said["other"], "instances": said["instances"]}


def _expected_category(key: str, values: Counter[str]) -> Json:
    ranked = sorted(values.items(), key=lambda each: (-each[1], each[0]))
    other = sum(instances for _, instances in ranked[MOST_VALUES:])
    return {"key": key, "values": ranked[:MOST_VALUES], "other": other, "instances": values.total()}


def _shown(raw: Raw, slug: str) -> Callable[[str], bool]:
    return lambda key: not truth.is_hidden(key, raw, slug)


def _lists(flags: Json) -> list[list[Decimal | None]]:
    return [values for flag in flags.values() for values in (flag["true"], flag["instances"])]
