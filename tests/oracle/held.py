"""Holds a server's answers to the truth, figure by figure.

A figure that time itself changes while we ask is asked for again, so a comparison never hangs on the clock.
"""

import atexit
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx

from tests.oracle import raw as rows
from tests.oracle import truth
from tests.oracle.raw import Raw
from tests.oracle.truth import LAPSES, MOST_VALUES, WINDOW, Figures
from tests.server_process import ServerProcess

PERIODS = ("24h", "7d", "30d", "3m", "1y", "all")
MOST_POINTS = 400
MEAN_ERROR = Fraction(1, 10**19)  # of a mean, relative to it
TRIES = 5  # until no moment falls into the asking at which a figure changes by itself

_client = httpx.Client(timeout=30)
atexit.register(_client.close)

Json = Any


def ask(server: ServerProcess, path: str) -> Json:
    """GET below `/api/v1/admin/`, numbers with all their digits."""
    answer = _client.get(f"{server.url}/api/v1/admin/{path}", headers=server.headers).raise_for_status()
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def hold_to_the_oracle(
    server: ServerProcess, database: str, slug: str | None = None, window: timedelta = WINDOW
) -> None:
    """Everything that is told of now, of an application, or of each and of all of them together."""
    raw = rows.read(database)
    for each in raw.applications if slug is None else [slug]:
        for counted_only in (False, True):
            path = f"applications/{each}/kpis?counted={json.dumps(counted_only)}"
            said, raw, now = _asked(server, database, path, window)
            hold_kpis(said, raw, now, each, window, counted_only=counted_only)
        said, raw, now = _asked(server, database, f"metrics/{each}", window)
        hold_now(said, raw, now, each, window)
    if slug is None:
        said, raw, now = _asked(server, database, "stats", window)
        hold_stats(said, raw, now, window)
        said, raw, now = _asked(server, database, "applications?limit=1000", window)
        assert {each["slug"]: each["instances"] for each in said} == {
            each: truth.counts(raw, now, window, each) for each in raw.applications
        }


def hold_the_past_to_the_oracle(
    server: ServerProcess,
    database: str,
    slug: str | None = None,
    window: timedelta = WINDOW,
    periods: Sequence[str] = PERIODS,
) -> None:
    """Every series, of an application or of each, once all snapshots are rolled up; also of keys that are no more."""
    for each in rows.read(database).applications if slug is None else [slug]:
        for period in periods:
            said, raw, now = _asked(server, database, f"metrics/{each}?period={period}", window)
            hold_series(said, raw, now, each, window)
        gone = sorted({key for known in raw.snapshots.values() for one in known for key in one.leaves if "," not in key})
        if gone:
            said, raw, now = _asked(server, database, f"metrics/{each}?period=all&keys={','.join(gone)}", window)
            hold_series(said, raw, now, each, window)
            for key in gone:
                told_any = _is_told(key, said)
                known_any = any(
                    key in one.leaves and not isinstance(one.leaves[key], str)
                    for at in said["timestamps"][:-1]
                    for one in truth.reporting_then(raw, each, _moment(at), window)
                )
                assert told_any or not known_any or truth.is_hidden(key, raw, each), key


def hold_kpis(
    said: Json, raw: Raw, now: datetime, slug: str, window: timedelta, *, counted_only: bool = False
) -> None:
    """`GET applications/{slug}/kpis`."""
    figures = Figures.of(truth.reporting(raw, now, window, slug, counted_only=counted_only))
    shown = _shown(raw, slug)
    assert said["instances"] == truth.counts(raw, now, window, slug)
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


def hold_now(said: Json, raw: Raw, now: datetime, slug: str, window: timedelta) -> None:
    """The last value of each series of `GET metrics/{app}`: what the KPIs read."""
    figures = Figures.of(truth.reporting(raw, now, window, slug))
    shown = _shown(raw, slug)
    told = {*filter(shown, figures.numbers), *filter(shown, figures.flags)}
    assert set(filter(shown, figures.numbers)) <= said["metrics"].keys() <= told
    assert set(filter(shown, figures.flags)) <= said["flags"].keys() <= told  # what is a number now was a flag once
    _hold_point(said, -1, figures, raw, slug)


def hold_series(said: Json, raw: Raw, now: datetime, slug: str, window: timedelta) -> None:
    """`GET metrics/{app}`, at each of its moments; before the first one of `all` nothing was known."""
    moments = [_moment(at) for at in said["timestamps"]]
    assert 2 <= len(moments) <= MOST_POINTS
    assert moments == sorted(set(moments))
    assert abs(moments[-1] - now) < timedelta(minutes=1)
    assert said["running_since"] == said["timestamps"][-2]
    for values in [*said["metrics"].values(), *said["instances"].values(), *_lists(said["flags"])]:
        assert len(values) == len(moments)
    assert said["metrics"].keys() == said["instances"].keys()
    assert not any(truth.is_hidden(key, raw, slug) for key in [*said["metrics"], *said["flags"]])
    for place, at in enumerate(moments[:-1]):
        _hold_point(said, place, Figures.of(truth.reporting_then(raw, slug, at, window)), raw, slug)
    _hold_point(said, -1, Figures.of(truth.reporting(raw, now, window, slug)), raw, slug)
    if said["period"] == "all":
        told = {*said["metrics"], *said["flags"]}
        step = moments[1] - moments[0] if len(moments) > 2 else timedelta(days=1)
        for back in range(1, 60 if len(moments) < MOST_POINTS else 1):
            earlier = Figures.of(truth.reporting_then(raw, slug, moments[0] - back * step, window))
            assert not told & {*earlier.numbers, *earlier.flags}


def hold_stats(said: Json, raw: Raw, now: datetime, window: timedelta) -> None:
    """`GET stats`."""
    figures = Figures.of(truth.reporting(raw, now, window))
    assert said["global_metrics"].keys() == figures.numbers.keys()
    for key, value in said["global_metrics"].items():
        _hold_value(value, figures, key, truth.aggregate(key, raw))
    counts = truth.counts(raw, now, window)
    assert {name: said[f"{name}_instances"] for name in counts} == counts
    for name, lapse in LAPSES.items():
        assert said[name] == sum(truth.is_active(each, now, lapse) for each in raw.instances.values()), name
    assert said["new_this_week"] == truth.new_this_week(raw, now)
    members = Counter(instance.app_slug for instance in raw.instances.values())
    assert said["per_app_counts"] == {each.name: members[slug] for slug, each in raw.applications.items() if members[slug]}


def _asked(server: ServerProcess, database: str, path: str, window: timedelta) -> tuple[Json, Raw, datetime]:
    """An answer, and the rows and the moment that it is of."""
    for _ in range(TRIES):
        before = datetime.now(UTC)
        said = ask(server, path)
        now = datetime.now(UTC)
        raw = rows.read(database)
        full_hour = now.replace(minute=0, second=0, microsecond=0)
        if not any(before <= at <= now for at in [full_hour, *truth.changes(raw, window)]):
            return said, raw, now
    raise AssertionError("time changes the figures as often as we ask")


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
        assert (flag["true"][place], flag["instances"][place]) == (
            (sum(answers), len(answers)) if answers else (None, None)
        ), (key, at)


def _hold_value(said: Decimal | None, figures: Figures, key: str, aggregate: str, where: object = None) -> None:
    exact = figures.aggregated(key, aggregate)
    assert said is not None, (key, where)
    error = abs(Fraction(said) - exact)
    assert error <= (abs(exact) * MEAN_ERROR if aggregate == "avg" else 0), (key, said, exact, where)


def _category(said: Json) -> Json:
    return {
        "key": said["key"],
        "values": [(each["value"], each["instances"]) for each in said["values"]],
        "other": said["other"],
        "instances": said["instances"],
    }


def _expected_category(key: str, values: Counter[str]) -> Json:
    ranked = sorted(values.items(), key=lambda each: (-each[1], each[0]))
    other = sum(instances for _, instances in ranked[MOST_VALUES:])
    return {"key": key, "values": ranked[:MOST_VALUES], "other": other, "instances": values.total()}


def _shown(raw: Raw, slug: str) -> Callable[[str], bool]:
    return lambda key: not truth.is_hidden(key, raw, slug)


def _is_told(key: str, said: Json) -> bool:
    return key in said["metrics"] or key in said["flags"]


def _lists(flags: Json) -> list[list[Decimal | None]]:
    return [values for flag in flags.values() for values in (flag["true"], flag["instances"])]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
