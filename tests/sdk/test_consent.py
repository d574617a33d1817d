"""Told off means off: before the disk, before the network, before the host's own providers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shm_sdk import Client, Result
from shm_sdk.consent import refusal
from tests.support.peer import Peer

# Runs a client to its end and prints every event that CPython's auditing reports meanwhile, and every call and thread.
AUDITED = """
import json, os, sys, threading, time
import shm_sdk
from shm_sdk.outcome import Outcome  # what report_now answers with

seen = []
watching = False
sys.addaudithook(lambda event, arguments: watching and seen.append(event))
watching = True
telemetry = shm_sdk.Client(
    {url!r}, "Ledger", "1.4.2", data_dir={data_dir!r}, enabled={enabled!r}, report_interval={interval!r}
)
telemetry.provider(lambda: seen.append("provider") or {{}})
telemetry.start(first_report_after=0)
outcome = telemetry.report_now()
seen += [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
telemetry.stop(flush=True)
watching = False
print(json.dumps([outcome.result.value, seen]))
"""


def audited(peer: Peer, data_dir: Path, enabled: bool | None, interval: object = 3600, **environment: str) -> list[str]:
    """The outcome of a report and everything that happened, in a fresh interpreter."""
    code = AUDITED.format(url=peer.url, data_dir=str(data_dir), enabled=enabled, interval=interval)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    result, events = json.loads(done.stdout)
    return [result, *events]


@pytest.mark.parametrize(
    ("enabled", "environment"),
    [
        (False, {}),
        (None, {"SHM_ENABLED": "false"}),
        (True, {"SHM_TELEMETRY": "off"}),
        (True, {"DO_NOT_TRACK": "1"}),
        (True, {"DO_NOT_TRACK": "yes please"}),
        (True, {"DO_NOT_TRACK": "false"}),
    ],
    ids=str,
)
def test_a_refusal_touches_neither_disk_nor_network_nor_provider(
    peer: Peer, tmp_path: Path, enabled: bool | None, environment: dict[str, str]
) -> None:
    assert audited(peer, tmp_path / "data", enabled, **environment) == ["off"]
    assert not (tmp_path / "data").exists()
    assert peer.connections == []


def test_a_refusal_is_quiet_even_when_the_settings_are_wrong(peer: Peer, tmp_path: Path) -> None:
    assert audited(peer, tmp_path / "data", False, interval="nonsense") == ["off"]


def test_the_same_watch_does_see_a_client_that_may_report(peer: Peer, tmp_path: Path) -> None:
    """Without this, the tests above could not fail."""
    result, *events = audited(peer, tmp_path / "data", None)
    assert result == "sent"
    assert {"open", "os.mkdir", "socket.connect", "provider", "shm-telemetry"} <= set(events)


@pytest.mark.parametrize("value", ["", "0"])
def test_do_not_track_empty_or_zero_is_no_refusal(value: str) -> None:
    assert refusal(None, {"DO_NOT_TRACK": value}) is None


@pytest.mark.parametrize("enabled", [0, "", "false", "no", "perhaps", object()])
def test_a_wish_that_cannot_be_read_counts_as_a_refusal(enabled: object) -> None:
    assert refusal(enabled, {}) is not None


@pytest.mark.parametrize("value", ["0", "no", "OFF", " False ", "perhaps"])
def test_the_environment_can_refuse_in_any_spelling(value: str) -> None:
    assert refusal(None, {"SHM_ENABLED": value}) is not None


def test_an_argument_counts_before_shm_enabled_but_never_before_the_users_refusal() -> None:
    assert refusal(True, {"SHM_ENABLED": "false"}) is None
    assert refusal(True, {"SHM_ENABLED": "true", "SHM_TELEMETRY": "off"}) is not None


def test_a_refusal_that_comes_later_stops_the_next_report(
    client: Callable[..., Client], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert telemetry.report_now().result is Result.OFF
    assert peer.paths.count("/v1/snapshot") == 1
