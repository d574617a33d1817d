"""Series: at each moment what the KPIs would have read then, and at last what they read now."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.aging import age
from tests.backstage import Backstage, backstage
from tests.conftest import admin_cursor
from tests.installs import Install
from tests.oracle import hold_the_past_to_the_oracle, hold_to_the_oracle
from tests.server_process import ServerProcess

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POINTS = {"24h": 25, "7d": 29, "30d": 31, "3m": 91, "1y": 54}
STEPS = {"24h": HOUR, "7d": 6 * HOUR, "30d": DAY, "3m": DAY, "1y": 7 * DAY}


@pytest.fixture
def behind(database: str) -> Iterator[Backstage]:
    """The background, which is the test's to do; asked for before the server."""
    with backstage(database) as mine:
        yield mine


@pytest.fixture
def server(behind: Backstage, serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that rolls nothing up by itself."""
    return serve()


def full_hour(back: int = 0) -> datetime:
    """The last one that is over, or so many before it."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - back * HOUR


def series(server: ServerProcess, query: str = "", app: str = "ledger") -> Any:
    """`GET metrics/{app}`."""
    return server.get(f"metrics/{app}?{query}").json()


def by_moment(said: Any, key: str) -> dict[datetime, Any]:
    """A number's values."""
    return dict(zip(map(datetime.fromisoformat, said["timestamps"]), said["metrics"][key], strict=True))


@pytest.mark.parametrize("period", POINTS)
def test_a_period_has_its_moments_at_ends_of_its_steps_and_at_last_now(
    server: ServerProcess, behind: Backstage, period: str
) -> None:
    Install(server.url).arrived({"n": 1, "beta": True}, ago=3 * HOUR)
    behind.go_round()
    said = series(server, f"period={period}")
    *ends, now = map(datetime.fromisoformat, said["timestamps"])
    assert len(ends) + 1 == POINTS[period]
    assert {later - earlier for earlier, later in zip(ends, ends[1:], strict=False)} == {STEPS[period]}
    assert ends[-1] < now <= ends[-1] + STEPS[period]
    assert said["running_since"] == said["timestamps"][-2]
    assert datetime.now(UTC) - now < timedelta(minutes=1)
    for values in (said["metrics"]["n"], said["instances"]["n"], *said["flags"]["beta"].values()):
        assert len(values) == POINTS[period]
        assert values[-1] == 1
        assert values[0] is None


def test_all_begins_with_the_first_snapshot_and_has_at_most_400_moments(
    server: ServerProcess, behind: Backstage, database: str
) -> None:
    Install(server.url).arrived({"n": 1}, ago=29 * DAY)
    behind.go_round()
    said = series(server, "period=all")
    assert said["metrics"]["n"] == [1] * len(said["timestamps"])
    assert len(said["timestamps"]) in (30, 31)
    age(database, 700 * DAY)
    Install(server.url).arrived({"n": 5})
    behind.go_round()
    said = series(server, "period=all")
    assert 100 < len(said["timestamps"]) <= 400
    assert (said["metrics"]["n"][0], said["metrics"]["n"][50], said["metrics"]["n"][-1]) == (1, None, 5)


def test_a_gap_is_null_and_a_zero_is_zero(server: ServerProcess, behind: Backstage, database: str) -> None:
    install = Install(server.url).arrived({"n": 0, "beta": False})
    age(database, 45 * DAY)
    install.snapshot({"n": 0, "beta": False}, datetime.now(UTC) - 5 * DAY)
    behind.go_round()
    said = series(server, "period=3m")
    values = said["metrics"]["n"]
    assert set(values[:45]) == {None}
    assert set(values[46:75]) == {0}
    assert set(values[76:84]) == {None}
    assert set(values[-5:]) == {0}
    assert said["instances"]["n"] == said["flags"]["beta"]["instances"]
    assert said["flags"]["beta"]["true"] == values


@pytest.mark.parametrize("late", [timedelta(microseconds=-1), timedelta(), timedelta(microseconds=1)])
def test_a_snapshot_counts_from_the_full_hour_that_it_is_not_after_to_the_end_of_the_window(
    server: ServerProcess, behind: Backstage, database: str, late: timedelta
) -> None:
    at = full_hour(5)
    Install(server.url).arrived()
    Install(server.url).arrived({"n": 1}, ago=datetime.now(UTC) - at - late)
    behind.go_round()
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE snapshots SET snapshot_at = %s WHERE metrics ? 'n'", [at + late])
    values = by_moment(series(server), "n")
    first = at if late <= timedelta() else at + HOUR
    assert [moment for moment, value in values.items() if value is not None] == [
        moment for moment in values if moment >= first
    ]
    age(database, 30 * DAY)
    behind.go_round()
    values = by_moment(series(server, "keys=n"), "n")
    over = at if late <= timedelta() else at + HOUR  # the window is as long on its other side
    assert [moment for moment, value in values.items() if value is not None] == [
        moment for moment in values if moment < over
    ]
