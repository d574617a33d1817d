"""The clock of a server's machine: whatever it says, everything is judged by that of PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shm.db.clock import DatabaseClock
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act, ago, backlog

SHIFTED_CLOCK = Path(__file__).parents[1] / "support" / "shifted_clock"
HOUR = timedelta(hours=1)


def shifted(shift: timedelta) -> dict[str, str]:
    """The environment of a server on a machine with another clock."""
    return {"PYTHONPATH": str(SHIFTED_CLOCK), "TEST_CLOCK_SHIFT_S": str(shift.total_seconds())}


@pytest.fixture(scope="module", params=[-HOUR, HOUR], ids=["behind", "ahead"])
def skewed(
    request: pytest.FixtureRequest, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, timedelta]]:
    """A server for the tests of this module, and by how much its clock differs."""
    with module_server(postgres, tmp_path_factory.mktemp("skewed"), **shifted(request.param)) as (server, _):
        yield server, request.param


def test_a_server_with_another_clock_takes_the_same_snapshots(skewed: tuple[ServerProcess, timedelta]) -> None:
    server, _ = skewed
    install = Install(server.url).enroll({"n": 1})
    assert problem(install.snapshot({"n": 2}, datetime.now(UTC) + timedelta(minutes=6))) == (400, "timestamp_ahead")
    assert problem(install.snapshot({"n": 3}, ago(30 * 24 * 60 + 6))) == (400, "timestamp_too_old")
    members = backlog(install, [{"timestamp": ago(-6), "metrics": {}}, {"timestamp": ago(1), "metrics": {}}])
    assert [each["status"] for each in members.json()["snapshots"]] == ["refused", "stored"]
    (line,) = [line for line in server.log.splitlines() if "clock" in line]
    assert "PostgreSQL's clock is used" in line
    assert "by 3600 s" in line


def test_the_times_of_its_responses_are_postgresqls(skewed: tuple[ServerProcess, timedelta]) -> None:
    server, _ = skewed
    Install(server.url, app_name="Charts").enroll({"n": 1})
    refused = Install(server.url).enroll().snapshot({}, datetime.now(UTC) + HOUR * 9).json()
    times = [
        refused["server_time"],
        server.get("applications/charts/kpis").json()["as_of"],
        server.get("metrics/charts?period=24h").json()["timestamps"][-1],
        server.get("applications/charts/versions?period=24h").json()["timestamps"][-1],
    ]
    for each in times:
        assert abs(datetime.fromisoformat(each) - datetime.now(UTC)) < timedelta(minutes=2)
    assert server.get("metrics/charts?period=24h").json()["metrics"]["n"][-1] == 1


def test_a_difference_of_clocks_does_not_let_an_action_be_repeated(skewed: tuple[ServerProcess, timedelta]) -> None:
    """Its hash is deleted by PostgreSQL's clock, so it is accepted by that only."""
    server, shift = skewed
    install = Install(server.url).enroll({"n": 1})
    code = "timestamp_ahead" if shift > timedelta() else "timestamp_too_old"
    assert problem(act(install, "disclose", datetime.now(UTC) + shift)) == (400, code)
    assert problem(install.activate(datetime.now(UTC) + shift)) == (400, code)
    assert problem(act(install, "erase", datetime.now(UTC) + shift)) == (400, code)
    assert act(install, "erase").status_code == 200


async def test_the_difference_is_the_smallest_that_explains_a_measurement() -> None:
    """So clocks that agree have none, however long the round trip takes, and each measurement replaces the last."""
    start, difference = datetime.now(UTC), timedelta()

    async def read() -> tuple[datetime, datetime, datetime]:
        return start, start + difference, start + timedelta(seconds=4)

    clock = DatabaseClock(read)
    for seconds, expected in ((0, 0), (3, 0), (4, 0), (10, 6), (-7, -7), (2, 0)):
        difference = timedelta(seconds=seconds)
        await clock.measure()
        assert abs(clock.now() - datetime.now(UTC) - timedelta(seconds=expected)) < timedelta(seconds=1)
