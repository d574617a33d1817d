"""Two copies of one install become two installs, and a restored backup stays the one that it is."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shm_sdk import Client
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.server_process import ServerProcess

MakeClient = Callable[..., Client]


def instance_ids(server: ServerProcess) -> set[str]:
    return {row["instance_id"] for row in server.get("instances").json()}


def report(server: ServerProcess, data_dir: Path) -> None:
    telemetry = Client(server.url, "Ledger", "1.4.2", data_dir=data_dir)
    assert telemetry.report_now().sent
    telemetry.stop()


def test_a_cloned_machine_becomes_an_install_of_its_own(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original, clone = tmp_path / "original", tmp_path / "clone"
    report(server, original)
    (first,) = instance_ids(server)
    shutil.copytree(original, clone)
    for _ in range(6):
        report(server, original)
        report(server, clone)
    ids = instance_ids(server)
    assert first in ids
    assert len(ids) == 2
    assert caplog.text.count("this one is a copy") == 1
    assert sorted(path.name for path in tmp_path.rglob("*.cloned")) == ["metrics_identity.json.cloned"]


@pytest.mark.parametrize("is_state_lost", [True, False])
def test_a_restored_backup_stays_the_same_install(server: ServerProcess, tmp_path: Path, is_state_lost: bool) -> None:
    report(server, tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    for _ in range(3):
        report(server, tmp_path / "data")
    if is_state_lost:
        shutil.rmtree(tmp_path / "backup/ledger_telemetry")
    for _ in range(5):
        report(server, tmp_path / "backup")
    assert len(instance_ids(server)) == 1


def test_an_identity_is_replaced_once_only(client: MakeClient, scripted_server: ScriptedServer) -> None:
    body = b'{"status":"ok","sequence_conflict":true,"last_sequence":5}'
    scripted_server.script("/v1/snapshot", *[reply(202, body)] * 8)
    for _ in range(8):
        assert client().report_now().sent
    assert len({entry["instance_id"] for entry in scripted_server.bodies("/v1/snapshot")}) == 2


@pytest.mark.parametrize("last", ["-1", "true", "1e3", '"5"', "null", "9" * 40])
def test_a_conflict_without_a_number_is_ignored(
    client: MakeClient, scripted_server: ScriptedServer, last: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"status":"ok","sequence_conflict":true,"last_sequence":' + last.encode() + b"}"
    scripted_server.script("/v1/snapshot", *[reply(202, body)] * 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert client().report_now().sent
    assert [entry["sequence"] for entry in scripted_server.bodies("/v1/snapshot")] == [1, 2, 3, 4]
    assert caplog.text == ""
