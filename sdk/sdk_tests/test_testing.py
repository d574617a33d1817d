"""The fixtures for host applications: a report from the host's counters to the assertion."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import shm_sdk
from shm_sdk.clock import get_clock
from shm_sdk.testing import FrozenClock, ShmServer, frozen_clock, running_server


def make_telemetry(**settings: object) -> shm_sdk.Client:
    telemetry = shm_sdk.Client(app_name="Ledger", app_version="1.4.2", strict=True, **settings)  # type: ignore[arg-type]
    telemetry.provider(lambda: {"orders": 8, "mail": {"sent": 3}})
    return telemetry


def test_a_report_arrives_with_a_valid_signature(shm_server: ShmServer) -> None:
    telemetry = make_telemetry()
    assert telemetry.report_now().sent
    telemetry.stop()
    snapshot = shm_server.assert_reported(orders=8, mail__sent=3)
    assert (snapshot.app_version, snapshot.metrics) == ("1.4.2", shm_server.metrics)
    (install,) = shm_server.installs
    assert (install.is_active, install.registration["environment"]) == (True, "test")
    assert [(request.path, request.status) for request in shm_server.requests] == [
        ("/v1/register", 201),
        ("/v1/activate", 200),
        ("/v1/snapshot", 202),
    ]


def test_an_hour_passes_at_once(shm_server: ShmServer, shm_clock: FrozenClock) -> None:
    telemetry = make_telemetry()
    telemetry.start(first_report_after=600)
    shm_clock.advance(599)
    shm_server.assert_nothing_sent()
    shm_clock.advance(1)
    assert [snapshot.timestamp for snapshot in shm_server.snapshots] == [shm_clock.now()]
    for expected in (2, 3, 4):
        shm_clock.advance(hours=1.5)
        assert len(shm_server.snapshots) == expected
    telemetry.stop()


def test_an_outage_is_survived(shm_server: ShmServer) -> None:
    telemetry = make_telemetry()
    shm_server.fail()
    assert telemetry.report_now().result is shm_sdk.Result.FAILED
    with pytest.raises(AssertionError, match=r"no snapshot has {'orders': 8}; the newest has nothing.*register 503"):
        shm_server.assert_reported(0, orders=8)
    shm_server.fail(None)
    assert telemetry.report_now().sent
    with pytest.raises(AssertionError, match=r"'mail': {'sent': 3}"):
        shm_server.assert_reported(0, mail__sent=4)
    with pytest.raises(AssertionError, match="/v1/register"):
        shm_server.assert_nothing_sent()
    telemetry.stop()


def test_a_vendor_may_approve_by_hand(shm_server: ShmServer) -> None:
    shm_server.require_approval()
    telemetry = make_telemetry()
    assert telemetry.report_now().result is shm_sdk.Result.PENDING
    assert shm_server.snapshots == []
    telemetry.stop()


def test_disclosure_and_erasure(shm_server: ShmServer) -> None:
    telemetry = make_telemetry()
    assert telemetry.report_now().sent
    assert '"orders": 8' in json.dumps(telemetry.disclose().document)
    assert telemetry.erase().is_done
    assert shm_server.installs == []
    telemetry.stop()


def test_a_changed_body_is_refused(shm_server: ShmServer) -> None:
    telemetry = make_telemetry()
    assert telemetry.report_now().sent
    sent = shm_server.requests[-1]
    status, problem = shm_server.receive(sent.path, sent.headers, sent.body.replace(b'"orders":8', b'"orders":9'))
    assert (status, problem["code"]) == (403, "bad_signature")
    assert len(shm_server.snapshots) == 1
    telemetry.stop()


def test_a_wrong_clock_is_refused(shm_server: ShmServer, shm_clock: FrozenClock) -> None:
    telemetry = make_telemetry()
    assert telemetry.report_now().sent
    sent = shm_server.requests[-1]
    shm_clock.advance(days=31)
    status, problem = shm_server.receive(sent.path, sent.headers, sent.body)
    assert (status, problem["code"]) == (400, "timestamp_too_old")
    assert problem["server_time"] == shm_clock.now().isoformat().replace("+00:00", "Z")
    telemetry.stop()


def test_the_clock_goes_forward_only_and_is_put_back() -> None:
    before = get_clock()
    with frozen_clock() as clock:
        assert get_clock() is clock
        start = clock.now()
        clock.advance(minutes=1, seconds=1)
        assert (clock.now() - start, clock.monotonic()) == (timedelta(seconds=61), 61)
        with pytest.raises(ValueError, match="does not go back"):
            clock.advance(-1)
    assert get_clock() is before
    assert FrozenClock(datetime(2026, 1, 1, tzinfo=timezone.utc)).now().year == 2026


def test_without_fixtures(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server() as server:
        telemetry = make_telemetry(server_url=server.url, data_dir=tmp_path_factory.mktemp("data"))
        assert telemetry.report_now().sent
        telemetry.stop()
        server.assert_reported(orders=8)


def test_a_hosts_conftest_needs_one_line(pytester_directory: Path) -> None:
    (pytester_directory / "conftest.py").write_text('pytest_plugins = ["shm_sdk.testing"]\n')
    (pytester_directory / "test_host.py").write_text(
        "import shm_sdk\n\n"
        "def test_it(shm_server, shm_clock):\n"
        "    telemetry = shm_sdk.Client(app_name='Ledger', app_version='1')\n"
        "    telemetry.provider(lambda: {'orders': 8})\n"
        "    telemetry.start(first_report_after=60)\n"
        "    shm_clock.advance(minutes=1)\n"
        "    shm_server.assert_reported(orders=8)\n"
        "    telemetry.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=pytester_directory,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # those of this environment take seconds
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def pytester_directory(tmp_path: Path) -> Path:
    """A project of its own: pytest looks for no configuration above it."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path
