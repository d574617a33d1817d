"""The SDK against the real server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shm_sdk import Client, Result
from shm_sdk.clock import Clock
from shm_sdk.testing import frozen_clock
from tests.support import plain_http
from tests.support.scripted_server import ScriptedServer
from tests.support.server_process import ServerProcess

TIMEOUT_S = 60.0  # of one report, which takes milliseconds on an idle machine


def make_client(server: ServerProcess, data_dir: Path, **changes: Any) -> Client:
    return Client(
        **{"server_url": server.url, "app_name": "Café Ledger", "app_version": "1.4.2", "data_dir": data_dir, **changes}
    )


def list_instances(server: ServerProcess) -> list[dict[str, Any]]:
    instances: list[dict[str, Any]] = server.get("instances").json()
    return instances


def test_an_install_appears_with_its_settings_and_metrics(server: ServerProcess, tmp_path: Path) -> None:
    telemetry = make_client(server, tmp_path, environment="production", deployment_mode="appliance")
    telemetry.provider(lambda: {"invoices_sent": 1284, "mail": {"sent": 3}, "beta": True, "locale": "fr<FR>&co ünï"})
    outcome = telemetry.report_now(TIMEOUT_S)
    telemetry.stop()
    assert (outcome.result, outcome.status) == (Result.SENT, 202)
    (row,) = list_instances(server)
    identity = json.loads((tmp_path / "metrics_identity.json").read_text())
    assert row["instance_id"] == identity["instance_id"]
    assert (row["app_name"], row["app_slug"], row["app_version"]) == ("Café Ledger", "cafe-ledger", "1.4.2")
    assert (row["status"], row["environment"], row["deployment_mode"]) == ("active", "production", "appliance")
    assert row["os_arch"] == f"{row['metrics']['sys_os']}/{row['metrics']['sys_arch']}"
    assert row["metrics"]["mail"] == {"sent": 3}
    assert row["metrics"]["locale"] == "fr<FR>&co ünï"
    assert {"sys_cpu_cores", "sys_python_version", "sys_mode", "app_mem_rss_mb", "app_uptime_h"} < row["metrics"].keys()


def test_an_ephemeral_install_is_counted_apart(server: ServerProcess, tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    for data_dir in (tmp_path / "data", obstacle, obstacle):
        telemetry = make_client(server, data_dir, environment="production")
        assert telemetry.report_now(TIMEOUT_S).sent
        telemetry.stop()
    (row,) = [row for row in server.get("instances").json() if "sys_ephemeral" not in row["metrics"]]
    assert len(list_instances(server)) == 3
    counts = server.get(f"applications/{row['app_slug']}/kpis").json()["instances"]
    assert (counts["total"], counts["counted"], counts["excluded"]) == (3, 1, 2)


def test_a_signed_register_request_activates_the_install(
    server: ServerProcess, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    telemetry = make_client(
        server, tmp_path, server_url=scripted_server.url
    )  # the scripted server records the requests; the server gets the first one below
    assert telemetry.report_now(TIMEOUT_S).sent
    telemetry.stop()
    register = scripted_server.requests[0]
    response = plain_http.post(f"{server.url}{register.path}", content=register.body, headers=register.headers)
    assert response.status_code == 201
    assert [row["status"] for row in list_instances(server)] == ["active"]


@pytest.mark.parametrize("error", [sign * timedelta(hours=hours) for sign in (1, -1) for hours in (2, 100_000)])
def test_a_wrong_clock_follows_the_servers(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: timedelta
) -> None:
    """The first refusal has the server's time; the next report needs no further refusal."""

    class WrongClock(Clock):
        def now(self) -> datetime:
            return super().now() + error

    monkeypatch.setattr("shm_sdk.clock._current.clock", WrongClock())
    telemetry = make_client(server, tmp_path, collect_system_metrics=False)
    telemetry.provider(lambda: {"n": 1})
    before = datetime.now(UTC)
    for _ in range(2):
        outcome = telemetry.report_now(TIMEOUT_S)
        assert (outcome.result, outcome.status) == (Result.SENT, 202), outcome
    telemetry.stop()
    (row,) = list_instances(server)
    assert before <= datetime.fromisoformat(row["snapshot_at"]) <= datetime.now(UTC)


def test_of_several_snapshots_the_newest_is_current(server: ServerProcess, tmp_path: Path) -> None:
    telemetry = make_client(server, tmp_path, collect_system_metrics=False)
    count = iter(range(100))
    telemetry.provider(lambda: {"jobs": next(count)})
    assert [telemetry.report_now(TIMEOUT_S).status for _ in range(3)] == [202] * 3
    telemetry.stop()
    assert [row["metrics"] for row in list_instances(server)] == [{"jobs": 2}]


def test_an_updated_application_is_the_same_install(server: ServerProcess, tmp_path: Path) -> None:
    for version in ("1.4.2", "1.5.0"):
        telemetry = make_client(server, tmp_path, app_version=version)
        assert telemetry.report_now(TIMEOUT_S).sent
        telemetry.stop()
    assert [row["app_version"] for row in list_instances(server)] == ["1.5.0"]


def test_stop_with_flush_sends_a_last_report(server: ServerProcess, tmp_path: Path) -> None:
    code = (
        "import shm_sdk, sys; telemetry = shm_sdk.Client(data_dir=sys.argv[1])\n"
        "telemetry.provider(lambda: {'jobs': 42})\n"
        "telemetry.start(); telemetry.stop(flush=True, timeout=30)\n"
    )
    settings = {"SHM_SERVER_URL": server.url, "SHM_APP_NAME": "Ledger", "SHM_APP_VERSION": "1.4.2"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        env={**os.environ, **settings},
        timeout=60,
        check=True,
    )
    assert [row["metrics"]["jobs"] for row in list_instances(server)] == [42]


def test_reports_resume_after_a_server_restart(
    serve: Callable[..., ServerProcess], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    telemetry = make_client(server, tmp_path / "data")
    assert telemetry.report_now(TIMEOUT_S).sent
    server.kill()
    assert [telemetry.report_now(TIMEOUT_S).result for _ in range(3)] == [Result.FAILED] * 3
    server.start()
    assert telemetry.report_now(TIMEOUT_S).sent
    telemetry.stop()
    assert [record.levelname for record in caplog.records if record.name == "shm_sdk"].count("WARNING") == 1


def test_an_outage_of_hours_loses_no_hour(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """The SDK's clock begins some hours ago and is moved; the server is killed for the hours 1 to 4."""
    server = serve()
    telemetry = make_client(server, tmp_path / "data", collect_system_metrics=False)
    assert telemetry.report_now(TIMEOUT_S).sent  # registers, for which the clocks must agree
    telemetry.stop()
    (row,) = list_instances(server)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=7)
    slot = int(UUID(row["instance_id"])) % 3600  # the install's second of the hour, in which it reports
    start += timedelta(seconds=(slot - int(start.timestamp())) % 3600)
    with frozen_clock(start) as clock:
        telemetry = make_client(server, tmp_path / "data", collect_system_metrics=False)
        telemetry.provider(lambda: {"hour": round((clock.now() - start) / timedelta(hours=1))})
        telemetry.start(first_report_after=0)
        clock.advance()
        server.kill()
        for _ in range(4):
            clock.advance(hours=1)
        server.start()
        clock.advance(hours=1)
        telemetry.stop()
    history = server.get(f"instances/{row['instance_id']}/snapshots").json()[1:]  # without the one that registered
    assert [snapshot["metrics"]["hour"] for snapshot in history] == [5, 4, 3, 2, 1, 0]
    times = [datetime.fromisoformat(snapshot["snapshot_at"]) for snapshot in history]
    assert times == [start + timedelta(hours=hour) for hour in (5, 4, 3, 2, 1, 0)]
    assert [snapshot["sequence"] for snapshot in history] == [7, 6, 5, 4, 3, 2]


def test_the_largest_snapshot_is_accepted(server: ServerProcess, tmp_path: Path) -> None:
    telemetry = make_client(server, tmp_path)
    telemetry.provider(lambda: {f"{number:0128}": "é" * 5000 for number in range(1000)})
    assert telemetry.report_now(TIMEOUT_S).status == 202
    telemetry.stop()
