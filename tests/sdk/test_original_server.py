"""The SDK reports to the original server: its plain answers, its rate limits, and hours of a clock that is moved."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client, Result
from shm_sdk.testing import FrozenClock, frozen_clock
from tests.support.original_server import OriginalServer, running_original_server

STEP = timedelta(minutes=2)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> Iterator[FrozenClock]:
    with frozen_clock() as frozen:
        yield frozen


@pytest.fixture
def original(clock: FrozenClock) -> Iterator[OriginalServer]:
    with running_original_server(clock.now) as server:
        yield server


@pytest.fixture
def make(tmp_path: Path, original: OriginalServer, clock: FrozenClock) -> Iterator[Callable[..., Client]]:
    """Creates clients whose metric `hour` is the time since the start of the test."""
    start, clients = clock.now(), []

    def make_client(version: str = "1.4.2", directory: str = "data") -> Client:
        telemetry = Client(
            original.url, "Ledger", version, data_dir=tmp_path / directory, collect_system_metrics=False, strict=True
        )
        telemetry.provider(lambda: {"hour": (clock.now() - start) / HOUR})
        clients.append(telemetry)
        return telemetry

    yield make_client
    for client in clients:
        client.stop()


def pass_time(clock: FrozenClock, duration: timedelta) -> None:
    """Moves the clock in steps: a background thread reports at most once in each."""
    for _ in range(duration // STEP):
        clock.advance(STEP.total_seconds())


def test_hours_of_reports_and_an_outage(
    make: Callable[..., Client], original: OriginalServer, clock: FrozenClock
) -> None:
    """Of each hour there is a snapshot, also of four in which the server is away; each arrives once, in order."""
    start = clock.now()
    make().start(first_report_after=0)
    pass_time(clock, 2 * HOUR)
    original.is_away = True
    pass_time(clock, 4 * HOUR)
    original.is_away = False
    pass_time(clock, 2 * HOUR)
    times = [at for at, _ in original.snapshots]
    assert times == sorted(set(times))
    gaps = [later - earlier for earlier, later in zip([start, *times], [*times, clock.now()], strict=True)]
    assert max(gaps) < 1.6 * HOUR
    assert [metrics["hour"] for _, metrics in original.snapshots] == [(at - start) / HOUR for at in times]
    assert sum(path == "/v1/register" for path, _ in original.answers) == 1


def test_a_long_backlog_goes_within_two_hours(
    make: Callable[..., Client], original: OriginalServer, clock: FrozenClock
) -> None:
    """The original takes two snapshots at once, then one a minute."""
    make().start(first_report_after=0)
    pass_time(clock, HOUR)
    original.is_away = True
    for _ in range(24):
        clock.advance(hours=1)
    original.is_away = False
    before = len(original.snapshots)
    pass_time(clock, 2 * HOUR)
    assert len(original.snapshots) - before >= 24


def test_many_installs_behind_one_address(
    make: Callable[..., Client], original: OriginalServer, clock: FrozenClock
) -> None:
    """All register although five requests a minute are let through, and the snapshot of each first minute arrives."""
    for number in range(8):
        make(directory=str(number)).start(first_report_after=0)
    pass_time(clock, HOUR)
    assert [row.status for row in original.instances.values()] == ["active"] * 8
    assert sum(metrics["hour"] == 0 for _, metrics in original.snapshots) == 8


@pytest.mark.parametrize("activates_again", [True, False], ids=["newest", "before"])
def test_an_update_of_the_application(
    make: Callable[..., Client], original: OriginalServer, clock: FrozenClock, activates_again: bool
) -> None:
    original.activates_again = activates_again
    assert make().report_now().sent
    clock.advance(hours=1)
    updated = make("1.5.0")
    assert updated.report_now().sent
    assert [row.app_version for row in original.instances.values()] == ["1.5.0"]
    original.answers.clear()
    clock.advance(hours=1)
    assert updated.report_now().sent
    assert original.answers == [("/v1/snapshot", 202)]


def test_a_clock_that_is_ahead(make: Callable[..., Client], original: OriginalServer, clock: FrozenClock) -> None:
    """The original says nothing but 500. Snapshots of an outage have the same wrong time, and hold up none."""
    original.now = lambda: clock.now() - timedelta(days=2)
    original.is_away = True
    telemetry = make()
    assert telemetry.report_now().result is Result.FAILED
    clock.advance(hours=1)
    original.is_away = False
    assert telemetry.report_now().sent
    assert [at for at, _ in original.snapshots] == [original.now()]
    clock.advance(hours=1)
    assert telemetry.report_now().sent


def test_an_install_that_was_deleted_registers_again(
    make: Callable[..., Client], original: OriginalServer, clock: FrozenClock
) -> None:
    telemetry = make()
    assert telemetry.report_now().sent
    original.instances.clear()
    clock.advance(hours=1)
    assert telemetry.report_now().sent
    next(iter(original.instances.values())).status = "revoked"
    clock.advance(hours=1)
    assert telemetry.report_now().result is Result.REFUSED


@pytest.mark.parametrize(
    ("name", "limit"), [("app_version", 50), ("environment", 20), ("deployment_mode", 20)], ids=lambda each: str(each)
)
def test_a_value_that_the_original_cannot_store_is_one_error(
    tmp_path: Path,
    original: OriginalServer,
    clock: FrozenClock,
    caplog: pytest.LogCaptureFixture,
    name: str,
    limit: int,
) -> None:
    """It refuses the registration and gives no reason. The longest value that it takes is sent unchanged."""
    settings: dict[str, Any] = {"app_name": "Ledger", "app_version": "1.4.2", "strict": True}
    telemetry = Client(original.url, data_dir=tmp_path / "long", **{**settings, name: "x" * (limit + 1)})
    expected = (
        f"the server answered 400 to register: {name} has {limit + 1} characters, the original server takes {limit}"
    )
    for _ in range(3):
        outcome = telemetry.report_now()
        assert (outcome.result, outcome.reason) == (Result.REFUSED, expected)
        clock.advance(hours=1)
    errors = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    assert errors == [f"the telemetry server does not register this application: {expected}"]
    assert Client(original.url, data_dir=tmp_path / "short", **{**settings, name: "x" * limit}).report_now().sent


def test_what_the_original_lacks_is_said(make: Callable[..., Client], original: OriginalServer) -> None:
    telemetry = make()
    assert telemetry.report_now().sent
    assert "the server does not offer it; ask the vendor" in telemetry.disclose().text
    assert "Nothing is erased: the server does not offer it" in telemetry.erase().text
