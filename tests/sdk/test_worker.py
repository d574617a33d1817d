"""The background thread: it starts at once, reports by itself, and never delays the host's exit."""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from tests.support.scripted_server import ScriptedServer, reply, silence

MakeClient = Callable[..., Client]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def join_telemetry_threads() -> None:
    """Waits for the threads that `stop` has told to end."""
    for thread in telemetry_threads():
        thread.join(60)
    assert telemetry_threads() == []


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    join_telemetry_threads()


def telemetry_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shm-telemetry"]


@pytest.mark.parametrize("delay", [0, 0.01, timedelta(0), -5])
def test_a_started_client_reports(
    client: MakeClient, scripted_server: ScriptedServer, delay: float | timedelta
) -> None:
    client().start(first_report_after=delay)
    scripted_server.wait_for("/v1/snapshot")
    assert [thread.daemon for thread in telemetry_threads()] == [True]


def test_there_is_no_identity_before_the_first_report(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    telemetry = client()
    telemetry.start()
    state = tmp_path / "data/cafe-ledger_telemetry/state.json"
    wait_until(state.exists)  # it has the time of the first report, which later starts keep to
    telemetry.stop()
    assert scripted_server.connections == []
    assert not list(tmp_path.rglob("metrics_identity.json"))


def test_a_failed_first_report_is_retried(client: MakeClient, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/v1/snapshot", reply(503, Retry_After="0"))
    telemetry = client()
    telemetry.start(first_report_after=0)
    scripted_server.wait_for("/v1/snapshot")
    telemetry.stop()
    telemetry.start(first_report_after=0)
    scripted_server.wait_for("/v1/snapshots")


def test_starting_twice_starts_one_thread(client: MakeClient) -> None:
    telemetry = client()
    telemetry.start()
    telemetry.start(first_report_after=0)
    assert len(telemetry_threads()) == 1


def test_stop_can_be_called_repeatedly(client: MakeClient) -> None:
    telemetry = client()
    telemetry.stop()
    telemetry.start()
    telemetry.stop()
    telemetry.stop(flush=True)
    join_telemetry_threads()


def test_a_flush_sends_the_last_counters(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"jobs": 42})
    telemetry.start()
    telemetry.stop(flush=True, timeout=30)
    assert scripted_server.requests[-1].json["metrics"] == {"jobs": 42}


def test_stop_without_flush_sends_nothing(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    telemetry.start()
    telemetry.stop()
    assert scripted_server.requests == []


@pytest.mark.parametrize(
    "arguments", [{"timeout": 60}, {"flush": True, "timeout": 0.01}], ids=["without flush", "with flush"]
)
def test_stop_does_not_wait_for_a_report(
    client: MakeClient, scripted_server: ScriptedServer, arguments: dict[str, Any]
) -> None:
    scripted_server.script("/v1/register", silence)
    telemetry = client()
    telemetry.start(first_report_after=0)
    scripted_server.wait_for("/v1/register")
    started_at = time.monotonic()
    telemetry.stop(**arguments)
    assert time.monotonic() - started_at < 30  # without flush, the timeout does not matter
    assert len(telemetry_threads()) == 1
    scripted_server.close()
    join_telemetry_threads()


def test_a_provider_may_stop_its_own_telemetry(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()

    @telemetry.provider
    def stopping() -> dict[str, int]:
        telemetry.stop()
        return {"jobs": 1}

    telemetry.start(first_report_after=0)
    scripted_server.wait_for("/v1/snapshot")
    join_telemetry_threads()
    assert scripted_server.paths.count("/v1/snapshot") == 1


@pytest.mark.parametrize("delay", ["soon", object(), float("nan"), float("inf")])
def test_an_invalid_first_delay_does_not_raise(client: MakeClient, delay: float) -> None:
    client().start(first_report_after=delay)


HOST_PROGRAM = """
import sys, threading, shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1.4.2", data_dir=sys.argv[2])
in_provider = threading.Event()

@telemetry.provider
def metrics():
    in_provider.set()
    {metrics}
    return {{"jobs": 1}}

telemetry.start(first_report_after=0)
in_provider.wait()
{ending}
print("the host has ended", flush=True)
"""


@pytest.mark.parametrize("ending", ["", "telemetry.stop(timeout=0.1)", "telemetry.stop(flush=True, timeout=0.1)"])
@pytest.mark.parametrize("metrics", ["pass", "threading.Event().wait()"], ids=["silent server", "stuck provider"])
def test_a_host_exits_without_delay(scripted_server: ScriptedServer, tmp_path: Path, metrics: str, ending: str) -> None:
    """Even during a report to a server that never answers, or a call of a provider that never returns."""
    scripted_server.script("/v1/register", silence)
    completed = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            HOST_PROGRAM.format(metrics=metrics, ending=ending),
            scripted_server.url,
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONDEVMODE": "1"},
        capture_output=True,
        text=True,
        timeout=25,  # less than the worker's own timeout, after which the report ends by itself
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "the host has ended\n", "")


def test_a_host_without_logging_sees_mistakes_only(tmp_path: Path) -> None:
    code = (
        "import shm_sdk, sys; telemetry = shm_sdk.Client('http://127.0.0.1:1', 'Ledger', '1', data_dir=sys.argv[1])\n"
        "telemetry.report_now(); shm_sdk.Client(); del telemetry"
    )
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    mistake = "shm_sdk: telemetry is off: app_name is missing (the argument, or SHM_APP_NAME)\n"
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", mistake)


@pytest.mark.parametrize(
    "timeout",
    [None, "soon", -1, math.nan, math.inf, 10**400],
    ids=["None", "text", "negative", "NaN", "Infinity", "huge"],
)
def test_a_timeout_that_makes_no_sense_does_not_raise(client: MakeClient, timeout: Any) -> None:
    telemetry = client()
    outcome = telemetry.report_now(timeout)
    assert "inside the SDK" not in outcome.reason
    telemetry.start(first_report_after=100)
    telemetry.stop(flush=True, timeout=timeout)
    telemetry.stop(timeout=timeout)
