"""A sequence number that comes twice shows that two processes report as one instance."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.support.installs import Install
from tests.support.server_process import ServerProcess

NOW = datetime.now(UTC).replace(microsecond=0)


def send(install: Install, minutes_ago: float, sequence: int | None) -> dict[str, Any]:
    more = {} if sequence is None else {"sequence": sequence}
    response = install.snapshot({"n": 1}, NOW - timedelta(minutes=minutes_ago), **more)
    assert response.status_code == 202
    document: dict[str, Any] = response.json()
    assert document.pop("status") == "ok"
    assert document.pop("message") == "Snapshot received"
    return document


def conflict(last_sequence: int) -> dict[str, Any]:
    return {"sequence_conflict": True, "last_sequence": last_sequence}


@pytest.mark.parametrize("sequence", [7, 3, 0])
def test_a_newer_snapshot_with_a_used_number_is_a_conflict(shared_server: ServerProcess, sequence: int) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    assert send(install, 30, 7) == {}
    assert send(install, 20, sequence) == conflict(7)
    assert send(install, 10, 8) == {}


def test_numbers_that_grow_are_no_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    assert [send(install, 30 - number, number) for number in (1, 2, 5, 9)] == [{}] * 4


def test_a_late_snapshot_is_no_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    assert send(install, 10, 9) == {}
    assert [send(install, 60 - number, number) for number in (5, 9, 20)] == [{}] * 3
    assert send(install, 5, 10) == {}


def test_a_repeated_request_is_no_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    assert [send(install, 10, 4) for _ in range(3)] == [{}] * 3
    assert send(install, 5, 4) == conflict(4)
    assert send(install, 5, 4) == {}


def test_snapshots_without_a_number_are_no_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    assert [send(install, minutes, sequence) for minutes, sequence in ((30, 7), (20, None), (10, 7))] == [{}] * 3


def test_a_conflict_in_a_backlog_is_told_of_its_member(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll(ago=timedelta(hours=3))
    send(install, 20, 5)
    members = [
        {"timestamp": (NOW - timedelta(minutes=minutes)).isoformat(), "metrics": {"n": 1}, "sequence": sequence}
        for minutes, sequence in ((60, 4), (10, 5))
    ]
    body = msgspec.json.encode({"instance_id": install.instance_id, "snapshots": members})
    response = install.post("/v1/snapshots", body, install.signed(body))
    assert response.json()["snapshots"] == [{"status": "stored"}, {"status": "stored", **conflict(5)}]
