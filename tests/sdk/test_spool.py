"""What an outage keeps from the server reaches it later: signed, in order, with its own time, within limits."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client, Result
from shm_sdk.identity import create_ephemeral
from shm_sdk.spool import MAX_SNAPSHOTS, Spool
from shm_sdk.testing import frozen_clock
from tests.support.scripted_server import ScriptedServer, reply

MakeClient = Callable[..., Client]


def sent(scripted_server: ScriptedServer) -> list[Any]:
    """All snapshots that the server got, in order."""
    snapshots: list[Any] = []
    for request in scripted_server.requests:
        if request.path == "/v1/snapshots":
            snapshots += request.json["snapshots"]  # type: ignore[arg-type]
        elif request.path == "/v1/snapshot":
            snapshots.append(request.json)
    return snapshots


def outage_of_four_hours(client: MakeClient, scripted_server: ScriptedServer) -> None:
    """A report in each hour, with two retries; each by a new process."""
    assert client().report_now().sent
    with frozen_clock() as clock:
        scripted_server.script("/v1/snapshot", *[reply(503)] * 1)
        scripted_server.script("/v1/snapshots", *[reply(503)] * 11)
        for hour in range(1, 5):
            for _ in range(3):
                telemetry = client()
                telemetry.provider(lambda hour=hour: {"hour": hour})
                assert telemetry.report_now().result is Result.FAILED
                clock.advance(minutes=5)
            clock.advance(minutes=45)
        scripted_server.requests.clear()
        telemetry = client()
        telemetry.provider(lambda: {"hour": 5})
        assert telemetry.report_now().sent


def test_an_outage_of_four_hours_loses_nothing(client: MakeClient, scripted_server: ScriptedServer) -> None:
    outage_of_four_hours(client, scripted_server)
    assert scripted_server.paths == ["/v1/snapshots"]
    snapshots = sent(scripted_server)
    assert [snapshot["metrics"] for snapshot in snapshots] == [{"hour": hour} for hour in range(1, 6)]
    for name in ("timestamp", "sequence"):
        values = [snapshot[name] for snapshot in snapshots]
        assert values == sorted(set(values))
    scripted_server.requests.clear()
    assert client().report_now().sent
    assert scripted_server.paths == ["/v1/snapshot"]  # nothing is sent twice


def test_a_server_without_backlogs_gets_them_one_by_one(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    public_key = str(scripted_server.requests[0].json["public_key"])
    scripted_server.script("/v1/snapshot", reply(500))
    scripted_server.script("/v1/snapshots", reply(404))
    assert telemetry.report_now().result is Result.FAILED
    scripted_server.requests.clear()
    assert telemetry.report_now().sent
    assert scripted_server.paths == ["/v1/snapshots", "/v1/snapshot", "/v1/snapshot"]
    assert [snapshot["sequence"] for snapshot in sent(scripted_server)[-2:]] == [2, 3]
    assert all(request.is_signed_by(public_key) for request in scripted_server.requests)


def test_a_rate_limit_keeps_the_rest(client: MakeClient, scripted_server: ScriptedServer) -> None:
    """The original server accepts five requests a minute."""
    telemetry = client()
    scripted_server.script("/v1/snapshot", reply(500))
    assert telemetry.report_now().result is Result.FAILED
    scripted_server.script("/v1/snapshots", reply(404))
    scripted_server.script("/v1/snapshot", reply(202), reply(429))
    assert telemetry.report_now().status == 429
    scripted_server.requests.clear()
    assert telemetry.report_now().sent
    assert [snapshot["sequence"] for snapshot in sent(scripted_server)] == [2, 3]


def test_a_refused_member_is_dropped_with_a_word(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = client()
    scripted_server.script("/v1/snapshot", reply(500))
    telemetry.report_now()
    verdicts = b'{"status":"refused","code":"timestamp_too_old"},{"status":"stored"}'
    scripted_server.script("/v1/snapshots", reply(202, b'{"status":"ok","snapshots":[' + verdicts + b"]}"))
    assert telemetry.report_now().sent
    assert caplog.text.count("is dropped: refused (timestamp_too_old)") == 1
    scripted_server.requests.clear()
    assert telemetry.report_now().sent
    assert scripted_server.paths == ["/v1/snapshot"]


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_spool_is_bounded_in_number_size_and_age(tmp_path: Path, is_stored: bool) -> None:
    spool = Spool(tmp_path if is_stored else None)
    install, another = create_ephemeral(""), create_ephemeral("")

    def add(body: bytes, number: int) -> None:
        spool.add(body, install.sign(body), number, 60)

    with frozen_clock() as clock:
        for number in range(MAX_SNAPSHOTS + 5):
            add(b"{}", number)
            clock.advance(minutes=1)
        assert len(spool.load(install)) == MAX_SNAPSHOTS
        for number in range(5):
            add(b"x" * 900_000, 1000 + number)
            clock.advance(minutes=1)
        assert len(spool.load(install)) == 2
        clock.advance(timedelta(days=30).total_seconds())
        add(b"{}", 2000)
        assert len(spool.load(install)) == 1
        assert spool.load(another) == []
        assert spool.load(install) == []


def test_a_file_of_another_program_pushes_out_no_snapshot(tmp_path: Path) -> None:
    install = create_ephemeral("")
    spool = Spool(tmp_path)
    spool.add(b"{}", install.sign(b"{}"), 1, 0)
    (folder,) = {path.parent for path in tmp_path.rglob("0*-1")}
    (folder / "9abc").write_text("notes")
    spool.add(b"[]", install.sign(b"[]"), 2, 0)
    assert [entry.body for entry in spool.load(install)] == [b"{}", b"[]"]
