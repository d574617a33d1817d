"""Turned-off telemetry uses no disk, no network and no provider."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shm_sdk import Client, Result
from shm_sdk.opt_out import opt_out_reason
from tests.support.scripted_server import ScriptedServer

# Runs a client and prints every audit event of CPython, every call of a provider and every thread.
AUDIT_PROGRAM = """
import json, os, sys, threading, time
from shm_sdk import Client, Outcome  # both are imported on their first use, before the recording begins

events = []
is_recording = False
sys.addaudithook(lambda event, arguments: is_recording and events.append(event))
is_recording = True
telemetry = Client(
    {url!r}, "Ledger", "1.4.2", data_dir={data_dir!r}, enabled={enabled!r}, report_interval={interval!r}
)
telemetry.provider(lambda: events.append("provider") or {{}})
telemetry.start(first_report_after=0)
outcome = telemetry.report_now()
events += [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
telemetry.stop(flush=True)
is_recording = False
print(json.dumps([outcome.result.value, events]))
"""


def run_audited(
    scripted_server: ScriptedServer, data_dir: Path, enabled: bool | None, interval: object = 3600, **environment: str
) -> list[str]:
    """The result of a report and the recorded events, in a new interpreter."""
    code = AUDIT_PROGRAM.format(url=scripted_server.url, data_dir=str(data_dir), enabled=enabled, interval=interval)
    completed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    result, events = json.loads(completed.stdout)
    return [result, *(event for event in events if event != "object.__getattr__")]  # a look at the provider's code


@pytest.mark.parametrize(
    ("enabled", "environment"),
    [
        (False, {}),
        (None, {"SHM_ENABLED": "false"}),
        (True, {"SHM_TELEMETRY": "off"}),
        (True, {"SHM_TELEMETRY": "disabled"}),
        (True, {"SHM_TELEMETRY": '"off"'}),
        (True, {"SHM_TELEMETRY_LEDGER": "none"}),
        (True, {"DO_NOT_TRACK": "1"}),
        (True, {"DO_NOT_TRACK": "yes please"}),
        (True, {"DO_NOT_TRACK": "false"}),
    ],
    ids=str,
)
def test_opting_out_uses_no_disk_network_or_provider(
    scripted_server: ScriptedServer, tmp_path: Path, enabled: bool | None, environment: dict[str, str]
) -> None:
    assert run_audited(scripted_server, tmp_path / "data", enabled, **environment) == ["off"]
    assert not (tmp_path / "data").exists()
    assert scripted_server.connections == []


def test_opting_out_silences_wrong_settings(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    assert run_audited(scripted_server, tmp_path / "data", False, interval="nonsense") == ["off"]


def test_the_audit_records_a_client_that_reports(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """Shows that the tests above can fail."""
    result, *events = run_audited(scripted_server, tmp_path / "data", None)
    assert result == "sent"
    assert {"open", "os.mkdir", "socket.connect", "provider", "shm-telemetry"} <= set(events)


@pytest.mark.parametrize("word", ["disabled", "none", "off", "OFF", "0", "n", "never", "aus", "'off'", '"none"', " x "])
@pytest.mark.parametrize("variable", ["SHM_TELEMETRY", "SHM_TELEMETRY_CAFE_LEDGER"])
def test_any_word_that_is_not_clearly_on_means_off(word: str, variable: str) -> None:
    assert opt_out_reason(True, {variable: word}, "Café Ledger") == f"{variable} turns it off"
    assert opt_out_reason(True, {variable: word, "SHM_APP_NAME": "Café Ledger"}) == f"{variable} turns it off"


@pytest.mark.parametrize("word", ["", "on", "ON", " true ", "yes", "1", "enabled", '"on"', "'1'", '""'])
def test_a_clear_yes_allows_telemetry(word: str) -> None:
    assert opt_out_reason(None, {"SHM_TELEMETRY": word, "SHM_TELEMETRY_LEDGER": word}, "Ledger") is None


def test_an_applications_variable_concerns_no_other() -> None:
    assert opt_out_reason(None, {"SHM_TELEMETRY_WIKI": "off"}, "Ledger") is None
    assert opt_out_reason(None, {"SHM_TELEMETRY": "off", "SHM_TELEMETRY_LEDGER": "on"}, "Ledger") is not None


@pytest.mark.parametrize("value", ["", "0", '"0"', "''"])
def test_do_not_track_empty_or_zero_allows_telemetry(value: str) -> None:
    assert opt_out_reason(None, {"DO_NOT_TRACK": value}) is None


@pytest.mark.parametrize("enabled", [0, "", "false", "no", "perhaps", object()])
def test_an_unreadable_argument_turns_telemetry_off(enabled: object) -> None:
    assert opt_out_reason(enabled, {}) is not None


@pytest.mark.parametrize("value", ["0", "no", "OFF", " False ", "perhaps"])
def test_the_variable_turns_telemetry_off_in_any_spelling(value: str) -> None:
    assert opt_out_reason(None, {"SHM_ENABLED": value}) is not None


def test_no_argument_overrides_the_users_variable() -> None:
    assert opt_out_reason(True, {"SHM_ENABLED": "false"}) is None
    assert opt_out_reason(True, {"SHM_ENABLED": "true", "SHM_TELEMETRY": "off"}) is not None


def test_a_later_opt_out_stops_the_next_report(
    client: Callable[..., Client], scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert telemetry.report_now().result is Result.OFF
    assert scripted_server.paths.count("/v1/snapshot") == 1
