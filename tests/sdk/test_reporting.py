"""One report: its requests, their order, and the outcome of each response."""

import logging
import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from shm_sdk import Client, Outcome, Result
from tests.support.scripted_server import ScriptedServer, raw, reply, run_scripted_server

MakeClient = Callable[..., Client]

TIME = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z")


def test_an_install_registers_activates_and_reports(client: MakeClient, scripted_server: ScriptedServer) -> None:
    assert client().report_now() == Outcome(Result.SENT, "stored", 202)
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
    assert {request.method for request in scripted_server.requests} == {"POST"}


def test_every_request_is_signed_over_its_exact_bytes(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client(app_name="Бухгалтерия 日本")
    telemetry.provider(lambda: {"größe": "é€", "n": 1.5})
    telemetry.report_now()
    registration = scripted_server.requests[0].json
    for request in scripted_server.requests:
        assert request.is_signed_by(str(registration["public_key"]))
        assert request.headers["x-instance-id"] == registration["instance_id"]
        assert request.headers["content-type"] == "application/json"


def test_register_sends_the_hosts_settings_only(client: MakeClient, scripted_server: ScriptedServer) -> None:
    client(environment="production", deployment_mode="appliance", os_arch="plan9/mips").report_now()
    registration = scripted_server.requests[0].json
    assert uuid.UUID(str(registration.pop("instance_id"))).version == 4
    assert re.fullmatch("[0-9a-f]{64}", str(registration.pop("public_key")))
    assert TIME.fullmatch(str(registration.pop("timestamp")))
    assert registration == {
        "app_name": "Café Ledger",
        "app_version": "1.4.2",
        "deployment_mode": "appliance",
        "environment": "production",
        "os_arch": "plan9/mips",
    }


def test_without_system_metrics_the_machine_is_not_inspected(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    client(collect_system_metrics=False).report_now()
    assert scripted_server.requests[0].json.keys() == {
        "instance_id",
        "public_key",
        "app_name",
        "app_version",
        "timestamp",
    }
    assert scripted_server.requests[2].json["metrics"] == {}


def test_a_snapshot_has_timestamp_version_and_sequence(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"invoices_sent": 7, "revenue": Decimal("12.50"), "nested": {"beta": True}})
    before = datetime.now(UTC)
    telemetry.report_now()
    telemetry.report_now()
    first, second = (request.json for request in scripted_server.requests if request.path == "/v1/snapshot")
    assert first.keys() == {"instance_id", "timestamp", "metrics", "app_version", "sequence"}
    assert str(first["timestamp"]).endswith("Z")
    assert before <= datetime.fromisoformat(str(first["timestamp"])) <= datetime.now(UTC)
    assert first["metrics"] == {"invoices_sent": 7, "revenue": 12.5, "nested": {"beta": True}}
    assert (first["app_version"], first["sequence"], second["sequence"]) == ("1.4.2", 1, 2)


def test_the_second_report_is_one_request(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    telemetry.report_now()
    telemetry.report_now()
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshot"]
    assert len(scripted_server.connections) == 1


def test_a_connection_closed_by_the_server_is_reopened(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    scripted_server.script("/v1/snapshot", raw(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}", keep=False))
    assert telemetry.report_now().sent
    assert telemetry.report_now().sent
    assert len(scripted_server.connections) == 2


def test_providers_are_merged_and_failures_skipped(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()

    @telemetry.provider
    def users() -> dict[str, int]:
        return {"users": 3, "shared": 1}

    @telemetry.provider
    def broken() -> dict[str, int]:
        raise RuntimeError("the database is unavailable")

    @telemetry.provider
    def exits() -> dict[str, int]:
        raise SystemExit(1)

    telemetry.provider(lambda: "not a mapping")  # type: ignore[type-var]
    telemetry.provider(None)
    telemetry.provider(lambda: {"jobs": 4, "shared": 2})
    assert users() == {"users": 3, "shared": 1}
    assert telemetry.report_now().sent
    assert scripted_server.requests[-1].json["metrics"] == {"users": 3, "shared": 2, "jobs": 4}


def test_a_provider_overrides_a_system_metric(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client(collect_system_metrics=True)
    telemetry.provider(lambda: {"sys_mode": "appliance"})
    telemetry.report_now()
    metrics = scripted_server.requests[-1].json["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["sys_mode"] == "appliance"
    assert "sys_os" in metrics


@pytest.mark.parametrize("status", [403, 404])
def test_a_forgotten_install_registers_again_once(
    client: MakeClient, scripted_server: ScriptedServer, status: int
) -> None:
    telemetry = client()
    telemetry.report_now()
    scripted_server.script("/v1/snapshot", reply(status))
    assert telemetry.report_now().sent
    assert scripted_server.paths[3:] == ["/v1/snapshot", "/v1/register", "/v1/activate", "/v1/snapshot"]
    assert scripted_server.requests[-1].body == scripted_server.requests[3].body


def test_a_refusing_server_is_asked_twice(client: MakeClient, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/v1/snapshot", reply(403), reply(403))
    outcome = client().report_now()
    assert (outcome.result, outcome.status) == (Result.REFUSED, 403)
    assert scripted_server.paths.count("/v1/register") == 2


def test_a_revoked_install_stops_after_register(client: MakeClient, scripted_server: ScriptedServer) -> None:
    scripted_server.script("/v1/register", reply(403, b'{"code":"unknown_instance"}'))
    outcome = client().report_now()
    assert outcome == Outcome(Result.REFUSED, "the server answered 403 to register (unknown_instance)", 403)
    assert scripted_server.paths == ["/v1/register"]


def test_a_pending_install_sends_no_snapshot(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    scripted_server.script("/v1/activate", reply(200, b'{"status":"pending"}'), reply(200, b'{"status":"pending"}'))
    assert telemetry.report_now().result is Result.PENDING
    assert telemetry.report_now().result is Result.PENDING
    assert telemetry.report_now().sent
    assert scripted_server.paths == ["/v1/register", *["/v1/activate"] * 3, "/v1/snapshot"]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_respected(client: MakeClient, scripted_server: ScriptedServer, status: int) -> None:
    telemetry = client()
    scripted_server.script("/v1/snapshot", reply(status, Retry_After="1800"))
    first = telemetry.report_now()
    second = telemetry.report_now()
    assert (first.result, first.status, first.retry_after) == (Result.FAILED, status, 1800)
    assert second.result is Result.FAILED
    assert 0 < (second.retry_after or 0) <= 1800
    assert scripted_server.paths.count("/v1/snapshot") == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), ("9" * 5000, 86400), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("-5", None), ("²", None)],
)
def test_retry_after_is_parsed_and_clamped(
    client: MakeClient, scripted_server: ScriptedServer, header: str, seconds: float | None
) -> None:
    scripted_server.script("/v1/register", reply(503, Retry_After=header))
    assert client().report_now().retry_after == seconds


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(client: MakeClient, scripted_server: ScriptedServer, status: int) -> None:
    with run_scripted_server() as elsewhere:
        scripted_server.script("/v1/register", reply(status, Location=f"{elsewhere.url}/v1/register"))
        outcome = client().report_now()
        assert (outcome.result, outcome.status) == (Result.FAILED, status)
        assert elsewhere.requests == []


def test_a_server_url_may_have_a_path(client: MakeClient, scripted_server: ScriptedServer) -> None:
    client(server_url=f"{scripted_server.url}/telemetry/").report_now()
    assert scripted_server.paths == ["/telemetry/v1/register"]


def test_concurrent_reports_run_one_after_the_other(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(telemetry.report_now())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.result for outcome in outcomes] == [Result.SENT] * 16
    assert scripted_server.paths.count("/v1/register") == 1
    sequences = sorted(
        int(str(request.json["sequence"])) for request in scripted_server.requests if request.path == "/v1/snapshot"
    )
    assert sequences == list(range(1, 17))


def test_a_provider_that_reports_does_not_deadlock(client: MakeClient) -> None:
    telemetry = client()
    inner: list[Outcome] = []

    @telemetry.provider
    def again() -> dict[str, int]:
        inner.append(telemetry.report_now())
        telemetry.stop()
        return {}

    assert telemetry.report_now().sent
    assert [outcome.result for outcome in inner] == [Result.FAILED]


def test_each_outage_logs_one_warning(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = client()
    scripted_server.script("/v1/snapshot", reply(500), reply(500))
    scripted_server.script("/v1/snapshots", reply(502), reply(500))  # the failed one waits, and goes with the next
    with caplog.at_level(logging.DEBUG):
        results = [telemetry.report_now().result for _ in range(5)]
    assert results == [Result.FAILED] * 3 + [Result.SENT, Result.FAILED]
    lines = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert [(line.name, line.levelname) for line in lines] == [("shm_sdk", "WARNING")] * 2


def test_a_rate_limit_is_no_outage(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_server.script("/v1/snapshot", reply(429, Retry_After="60"))
    telemetry = client()
    with caplog.at_level(logging.DEBUG):
        telemetry.report_now()
        telemetry.report_now()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_no_log_line_contains_a_secret(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = client()
    telemetry.provider(lambda: {"plan": "a very private value", "bad": object()})
    scripted_server.script(
        "/v1/snapshot", reply(400, b'{"code":"no","detail":"a very private value"}'), reply(202), raw(b"junk")
    )
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            telemetry.report_now()
        (tmp_path / "data" / "metrics_identity.json").write_text('{"private_key": "abcdef"')
        client().report_now()
    assert len(caplog.records) >= 4
    for request in scripted_server.requests:
        assert request.headers["x-signature"] not in caplog.text
    assert "private value" not in caplog.text
    assert "abcdef" not in caplog.text
