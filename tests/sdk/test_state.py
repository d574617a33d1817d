"""What one start keeps for the next: registration, sequence, and when the next report is due."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from shm_sdk.configuration import load_configuration
from shm_sdk.sender import Sender
from shm_sdk.shared_directory import SharedDirectory
from shm_sdk.state import State, StateFile
from tests.support.scripted_server import ScriptedServer, reply

MakeClient = Callable[..., Client]
SHARED = "cafe-ledger_telemetry"


def set_state(tmp_path: Path, **members: object) -> None:
    path = tmp_path / "data" / SHARED / "state.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | members))


def read_state(tmp_path: Path) -> dict[str, Any]:
    document = json.loads((tmp_path / "data" / SHARED / "state.json").read_text())
    assert isinstance(document, dict)
    return document


def test_a_second_start_sends_one_request(client: MakeClient, scripted_server: ScriptedServer) -> None:
    assert client().report_now().sent
    assert client().report_now().sent
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshot"]
    assert [body["sequence"] for body in scripted_server.bodies("/v1/snapshot")] == [1, 2]


@pytest.mark.parametrize("change", [{"app_version": "1.5.0"}, {"environment": "staging"}, {"app_name": "cafe ledger!"}])
def test_an_install_that_says_something_else_registers_again(
    client: MakeClient, scripted_server: ScriptedServer, change: dict[str, str]
) -> None:
    assert client().report_now().sent
    assert client(**change).report_now().sent
    assert scripted_server.paths.count("/v1/register") == 2


def test_an_unknown_install_registers_again_in_the_next_process(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    assert client().report_now().sent
    scripted_server.script("/v1/snapshot", reply(403))
    assert client().report_now().sent
    assert scripted_server.paths[3:] == ["/v1/snapshot", "/v1/register", "/v1/activate", "/v1/snapshot"]


def test_a_restart_keeps_to_the_servers_retry_after(client: MakeClient, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/v1/register", reply(503, Retry_After="1800"))
    client().report_now()
    assert 0 < (client().report_now().retry_after or 0) <= 1800
    assert scripted_server.paths == ["/v1/register"]


def make_sender(tmp_path: Path, first_report_after: float | None = None) -> Sender:
    settings = {"server_url": "http://localhost:1", "app_name": "Café Ledger", "app_version": "1"}
    configuration = load_configuration({**settings, "data_dir": tmp_path / "data"}, {})
    return Sender(
        configuration,
        SharedDirectory(configuration),
        random.Random(1),
        first_report_after=first_report_after,
        prepare_report=lambda: None,
    )


def test_the_first_delay_counts_from_the_first_start_ever(tmp_path: Path) -> None:
    """Processes that live shorter than the delay report too, together."""
    first = make_sender(tmp_path)
    assert 0 < first.next_delay() <= 300
    due = read_state(tmp_path)["next_report_at"]
    assert 300 <= due - time.time() + 1 <= 901
    first.close()
    second = make_sender(tmp_path)
    second.next_delay()
    assert read_state(tmp_path)["next_report_at"] == due
    second.close()
    set_state(tmp_path, next_report_at=time.time() - 1)
    assert make_sender(tmp_path).next_delay() == 0


def test_a_first_report_becomes_due_where_nothing_can_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(StateFile, "save", fail)
    sender, now = make_sender(tmp_path), time.time()
    assert sender.next_delay() > 0
    monkeypatch.setattr("shm_sdk.clock.Clock.timestamp", lambda _: now + 901)
    assert sender.next_delay() == 0
    sender.record_report(now + 901)
    assert sender.next_delay() > 0  # it does not report again and again


def test_only_one_sender_reports(tmp_path: Path) -> None:
    first, second = make_sender(tmp_path, 0), make_sender(tmp_path, 0)
    assert first.next_delay() == 0
    assert second.next_delay() > 10
    set_state(tmp_path, next_report_at=time.time() + 3600)  # as the report does
    first.close()
    assert second.next_delay() > 0  # the other process has reported; this one waits for the next time


def test_a_time_that_a_wrong_clock_has_stored_is_replaced(tmp_path: Path) -> None:
    set_state(tmp_path, next_report_at=time.time() + 10 * 365 * 86400)
    sender = make_sender(tmp_path)
    sender.next_delay()
    assert read_state(tmp_path)["next_report_at"] - time.time() < 901


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b"[]",
            b'{"sequence": "x", "counts": [1], "latest": {"a": 1}}',
            b"\xff",
            b'{"sequence": ' + b"9" * 5_000,
        ),
        b'{"quiet_until": %d, "next_report_at": Infinity, "last_sent_at": NaN}' % (10**400),
        b'{"counts": {"a": %d, "b": Infinity, "c": true}, "latest": {"a": [1, %d], "b": [1]}}' % (10**400, 10**400),
    ],
)
def test_a_damaged_state_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert vars(StateFile(tmp_path).load()) == vars(State())
