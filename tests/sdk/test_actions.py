"""What an end user sees and decides, by methods, by commands and in a host's own command line."""

import argparse
import json
import logging
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client, Result
from shm_sdk.cli import COMMANDS, add_commands, main
from shm_sdk.clock import get_clock, set_clock
from shm_sdk.configuration import ConfigurationError
from shm_sdk.testing import FrozenClock
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.server_process import ServerProcess

MakeClient = Callable[..., Client]
VARIABLE_MEMBERS = ("timestamp", "sequence")


def without(document: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in document.items() if name not in names}


def test_the_preview_is_what_is_sent(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client(environment="production")
    telemetry.provider(lambda: {"orders": 8, "bad": object(), "mail": {"sent": 2}})
    assert telemetry.report_now().sent
    preview = telemetry.preview()
    assert scripted_server.paths == ["/v1/register", "/v1/activate", "/v1/snapshot"]
    assert preview.is_registered
    for sent, shown in (
        (scripted_server.requests[0], preview.register),
        (scripted_server.requests[2], preview.snapshot),
    ):
        assert without(json.loads(shown), *VARIABLE_MEMBERS) == without(sent.json, *VARIABLE_MEMBERS)


def test_the_preview_has_the_counters_of_this_process(client: MakeClient) -> None:
    telemetry = client()
    telemetry.counter("exports").inc(3)
    assert json.loads(telemetry.preview().snapshot)["metrics"] == {"exports": 3}


def test_the_preview_leaves_out_what_the_user_has_not_agreed_to(
    client: MakeClient, scripted_server: ScriptedServer
) -> None:
    metrics: dict[str, object] = {"orders": 8}
    telemetry = client(consent="opt-in")
    telemetry.provider(lambda: metrics)
    assert telemetry.turn_on().is_done
    assert telemetry.report_now().sent
    metrics["locale"] = "fr"
    assert json.loads(telemetry.preview().snapshot)["metrics"] == {"orders": 8}
    assert telemetry.report_now().sent
    assert scripted_server.requests[-1].json["metrics"] == {"orders": 8}


def test_the_status_has_the_times_of_the_reports(client: MakeClient) -> None:
    telemetry = client()
    assert (telemetry.status().last_sent_at, telemetry.status().next_report_at) == ("", "")
    assert telemetry.report_now().sent
    sent_at, next_at = (
        datetime.fromisoformat(time) for time in (telemetry.status().last_sent_at, telemetry.status().next_report_at)
    )
    assert datetime.now(UTC) - sent_at < timedelta(minutes=1)
    assert timedelta(minutes=29) < next_at - sent_at < timedelta(minutes=91)
    assert telemetry.turn_off().is_done
    assert telemetry.status().next_report_at == ""


def test_the_first_due_time_is_logged(client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shm_sdk"):
        telemetry = client()
        telemetry.start()
        deadline = time.monotonic() + 60
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        telemetry.stop()
    (record,) = caplog.records
    assert re.fullmatch(r"the first telemetry report is due at \d\d:\d\d:\d\d UTC, in [3-9]\d\d s", record.getMessage())
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("variable", ["DO_NOT_TRACK", "SHM_TELEMETRY"])
def test_a_preview_before_the_first_report_leaves_no_trace(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "off")
    telemetry = client()
    telemetry.provider(lambda: {"orders": 8})
    preview = telemetry.preview()
    assert json.loads(preview.snapshot)["metrics"] == {"orders": 8}
    assert not preview.is_registered
    assert scripted_server.connections == []
    assert not (tmp_path / "data").exists()


def test_a_refusal_ends_reports_of_a_running_process(client: MakeClient, scripted_server: ScriptedServer) -> None:
    running, other_process = client(), client()
    assert running.report_now().sent
    assert other_process.turn_off().text == "telemetry of Café Ledger is off"
    assert running.report_now().result is Result.OFF
    assert not running.status().is_on
    assert running.status().reason == "the user has turned it off"
    assert other_process.turn_on().is_done
    assert running.report_now().sent
    assert (
        len({request.json["instance_id"] for request in scripted_server.requests if "instance_id" in request.json}) == 1
    )


def test_turning_on_says_what_still_turns_it_off(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = client()
    monkeypatch.setenv("SHM_TELEMETRY", "off")
    result = telemetry.turn_on()
    assert (result.is_done, result.text) == (
        False,
        "the choice is stored, and telemetry stays off: SHM_TELEMETRY turns it off",
    )


def test_a_choice_that_cannot_be_stored_names_the_variable(client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    result = client().turn_off()
    assert not result.is_done
    assert "set SHM_TELEMETRY_CAFE_LEDGER=off" in result.text


def test_check_says_what_the_server_made_of_a_report(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    assert telemetry.check().text == "sent, HTTP 202: stored"
    scripted_server.script("/v1/snapshot", reply(400, b'{"code":"too_many_metrics"}'))
    result = telemetry.check()
    assert not result.is_done
    assert result.text == "refused, HTTP 400: the server answered 400 to snapshot (too_many_metrics)"


def test_an_erased_install_is_another_one_afterwards(server: ServerProcess, tmp_path: Path) -> None:
    def make() -> Client:
        return Client(server.url, "Ledger", "1.4.2", data_dir=tmp_path / "data")

    running, user = make(), make()
    running.provider(lambda: {"orders": 8})
    assert running.report_now().sent
    first = user.status().instance_id
    disclosed = user.disclose()
    assert disclosed.is_done
    assert first in json.dumps(disclosed.document)
    result = user.erase()
    assert result.is_done
    assert result.text == "telemetry of Ledger is off, and the server has erased this install"
    assert server.get("instances").json() == []
    assert running.report_now().result is Result.OFF
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ledger_telemetry_choice.json"]
    assert user.disclose().text == "this install has never reported"
    assert user.turn_on().is_done
    assert running.report_now().sent
    (row,) = server.get("instances").json()
    assert row["instance_id"] == user.status().instance_id != first
    running.stop()


def test_a_decision_that_cannot_be_stored_names_what_has_its_effect(
    scripted_server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by a variable; on by a directory that can be written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHM_DATA_DIR", str(tmp_path / "file" / "data"))
    telemetry = Client(scripted_server.url, "Ledger", "1.4.2", consent="opt-in")
    off, on = telemetry.turn_off(), telemetry.turn_on()
    assert (off.is_done, on.is_done) == (False, False)
    assert off.text.endswith("; set SHM_TELEMETRY_LEDGER=off")
    assert on.text.endswith("; the application needs a data directory that it can write (SHM_DATA_DIR)")
    assert telemetry.report_now().result is Result.PENDING
    monkeypatch.setenv("SHM_TELEMETRY_LEDGER", "off")
    assert telemetry.report_now().result is Result.OFF
    monkeypatch.delenv("SHM_TELEMETRY_LEDGER")
    monkeypatch.setenv("SHM_DATA_DIR", str(tmp_path))
    telemetry = Client(scripted_server.url, "Ledger", "1.4.2", consent="opt-in")
    assert telemetry.turn_on().is_done
    assert telemetry.report_now().sent


def test_an_erasure_that_fails_can_be_repeated(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    scripted_server.script("/v1/erase", reply(503), reply(200, b'{"erased_at":"now"}'))
    failed = telemetry.erase()
    assert (failed.is_done, telemetry.status().choice) == (False, "off")
    assert failed.text == "telemetry of Café Ledger is off. Nothing is erased: the server answered 503"
    result = telemetry.erase()
    assert (result.is_done, result.document) == (True, {"erased_at": "now"})
    assert telemetry.erase().text.endswith("This install has never reported")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>sign in</html>"),
        (200, b"[" * 60_000),
        (200, b"{}"),
        (200, b"[]"),
        (404, b"{}"),
        (403, b'{"code":"bad_signature"}'),
        (302, b""),
    ],
)
def test_an_answer_of_another_server_erases_nothing(
    client: MakeClient, scripted_server: ScriptedServer, status: int, body: bytes
) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    before = telemetry.status().instance_id
    scripted_server.script("/v1/erase", reply(status, body))
    scripted_server.script("/v1/disclose", reply(status, body))
    assert not telemetry.disclose().is_done
    result = telemetry.erase()
    assert (result.is_done, "Nothing is erased" in result.text) == (False, True)
    assert telemetry.status().instance_id == before


def test_an_identity_that_cannot_be_deleted_is_named(
    client: MakeClient, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHM_INSTANCE_ID", "c77af682-9aa4-412e-904a-c307d3a8a9c2")
    monkeypatch.setenv("SHM_PRIVATE_KEY", "00" * 32)
    telemetry = client()
    assert telemetry.report_now().sent
    scripted_server.script("/v1/erase", reply(200, b'{"erased_at":"now"}'))
    result = telemetry.erase()
    assert not result.is_done
    assert result.text.endswith("Remove SHM_INSTANCE_ID and SHM_PRIVATE_KEY before you turn it on again")


def test_a_wrong_clock_prevents_no_action(server: ServerProcess, tmp_path: Path) -> None:
    telemetry = Client(server.url, "Ledger", "1.4.2", data_dir=tmp_path / "data")
    assert telemetry.report_now().sent
    assert all(telemetry.disclose().is_done for _ in range(3))  # each is executed once: none repeats another's time
    previous = get_clock()
    set_clock(FrozenClock(datetime(2024, 2, 29, tzinfo=UTC)))
    try:
        assert telemetry.disclose().is_done
        assert telemetry.erase().is_done
    finally:
        set_clock(previous)
    assert server.get("instances").json() == []
    telemetry.stop()


def test_roots_choice_can_be_read_by_the_application(client: MakeClient, tmp_path: Path) -> None:
    assert client().turn_on().is_done
    assert stat.S_IMODE((tmp_path / "data/cafe-ledger_telemetry_choice.json").stat().st_mode) == 0o644
    assert client().status().variable == "SHM_TELEMETRY_CAFE_LEDGER"


@pytest.mark.long
def test_a_long_history_is_disclosed_whole(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    history = json.dumps(
        {"instance": {}, "snapshots": [{"metrics": {"orders": number}} for number in range(100_000)]}
    ).encode()
    scripted_server.script("/v1/disclose", reply(200, history), reply(200, history[:-1]), reply(500))
    assert telemetry.disclose().document == json.loads(history)
    assert telemetry.disclose().text == "the answer is incomplete, or not that of a SHM server"
    assert telemetry.disclose().text == "the server answered 500"


def run_command(tmp_path: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SHM_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "shm_sdk", *arguments],
        env=variables | {"XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_only_application_needs_no_name(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "ledger.py").write_text(
        "import shm_sdk\n"
        f"telemetry = shm_sdk.Client({scripted_server.url!r}, 'Ledger', '1.4.2')\n"
        "telemetry.provider(lambda: {'orders': 8})\n"
    )
    none = run_command(tmp_path, "off")
    assert (none.returncode, "which application?" in none.stderr) == (2, True)
    checked = run_command(tmp_path, "check", "--client", "ledger:telemetry")
    assert (checked.returncode, checked.stdout) == (0, "sent, HTTP 202: stored.\n")
    assert scripted_server.requests[-1].json["metrics"]["orders"] == 8  # type: ignore[index]
    stored, choice = run_command(tmp_path, "off").stdout.splitlines()
    assert (stored, choice.startswith(f"The choice is in {tmp_path}")) == ("telemetry of Ledger is off.", True)
    assert "telemetry: off, because the user has turned it off" in run_command(tmp_path, "status").stdout
    assert run_command(tmp_path, "check", "--client", "ledger").returncode == 1
    preview = run_command(tmp_path, "preview", "--client", "ledger")
    assert '"orders": 8' in preview.stdout
    assert "Nothing was sent." in preview.stdout
    for command in ("disclose", "erase"):  # a user need not know the version either
        scripted_server.script(f"/v1/{command}", reply(403, b'{"code":"unknown_instance"}'))
        done = run_command(tmp_path, command, SHM_SERVER_URL=scripted_server.url)
        assert (done.returncode, "the server holds nothing on" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("place", ["missing_module", "json:missing", "json:dumps", ":", "json"])
def test_a_wrong_client_is_named(tmp_path: Path, place: str) -> None:
    done = run_command(tmp_path, "preview", "--client", place)
    assert (done.returncode, place in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = run_command(tmp_path, "check", "--app-name", "Ledger", "--server-url", "metrics.example.com")
    assert (done.returncode, "write https://metrics.example.com" in done.stderr) == (2, True)


def test_every_command_exists() -> None:
    assert list(COMMANDS) == ["preview", "status", "check", "on", "off", "erase", "disclose"]
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])


def test_a_hosts_argparse_commands(
    client: MakeClient, scripted_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers().add_parser("telemetry"), client())

    def run(command: str) -> Any:
        options = parser.parse_args(["telemetry", command])
        return options.run(options)

    assert [run(command) for command in ("off", "on", "check")] == [0, 0, 0]
    scripted_server.script("/v1/disclose", reply(200, b'{"instance":{},"snapshots":[]}'))
    assert run("disclose") == 0
    assert capsys.readouterr().out.splitlines()[:5:2] == [
        "telemetry of Café Ledger is off.",
        "telemetry of Café Ledger is on.",
        "sent, HTTP 202: stored.",
    ]
    wrong = argparse.ArgumentParser()
    add_commands(wrong, client(server_url="nonsense"))
    options = wrong.parse_args(["preview"])
    assert options.run(options) == 2


def test_a_hosts_click_commands(client: MakeClient) -> None:
    testing = pytest.importorskip("click.testing")
    from shm_sdk.cli import click_group

    group = click_group(client())
    runner = testing.CliRunner()
    assert runner.invoke(group, ["check"]).output == "sent, HTTP 202: stored.\n"
    assert runner.invoke(group, ["off"]).exit_code == 0
    assert runner.invoke(group, ["check"]).exit_code == 1
    assert "preview" in runner.invoke(group, ["--help"]).output


def test_strict_raises_a_mistake_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match="server_url has no scheme: write https://metrics"):
        Client("metrics.example.com", "Ledger", "1", data_dir=tmp_path, strict=True)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert Client("metrics.example.com", "Ledger", "1", enabled=False, strict=True).report_now().result is Result.OFF
