"""Consent: what is sent before, after and without the user's answer."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client, Result
from shm_sdk.configuration import load_configuration
from shm_sdk.consent import ConsentRequest, command_options, hash_name
from tests.support.scripted_server import ScriptedServer

MakeClient = Callable[..., Client]


class User:
    """Answers each question with the next answer, and remembers the questions."""

    def __init__(self, *answers: bool | None) -> None:
        self.answers = list(answers)
        self.requests: list[ConsentRequest] = []

    def __call__(self, request: ConsentRequest) -> bool | None:
        self.requests.append(request)
        return self.answers.pop(0)


def choice_file(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "data" / "cafe-ledger_telemetry_choice.json").read_text())


def test_opt_in_sends_and_stores_nothing_without_an_answer(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    user = User(None)
    telemetry = client(consent="opt-in", consent_callback=user)
    telemetry.provider(lambda: {"orders": 8})
    assert [telemetry.report_now().result for _ in range(3)] == [Result.PENDING] * 3
    assert scripted_server.connections == []
    assert not (tmp_path / "data").exists()
    (request,) = user.requests
    assert (request.app_name, request.new_names, request.is_first) == ("Café Ledger", ("orders",), True)
    assert request.metrics == {"orders": 8}
    assert "SHM_TELEMETRY_CAFE_LEDGER=off" in request.text
    assert scripted_server.url in request.text


def test_an_agreement_is_stored_and_not_asked_for_again(client: MakeClient, tmp_path: Path) -> None:
    user = User(True)
    for _ in range(2):
        telemetry = client(consent="opt-in", consent_callback=user)
        telemetry.provider(lambda: {"orders": 8, "mail": {"sent": 2}})
        assert telemetry.report_now().sent
    assert len(user.requests) == 1
    assert choice_file(tmp_path)["metric_hashes"] == sorted(map(hash_name, ["mail.sent", "orders"]))


def test_a_refusal_is_stored(client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path) -> None:
    calls: list[str] = []
    for user in (User(False), User()):
        telemetry = client(consent="opt-in", consent_callback=user)

        @telemetry.provider
        def metrics() -> dict[str, object]:
            calls.append("provider")
            return {"orders": 8}

        assert telemetry.report_now().result is Result.OFF
    assert calls == ["provider"]
    assert scripted_server.connections == []
    assert choice_file(tmp_path)["telemetry"] == "off"


@pytest.mark.parametrize(
    ("answer", "later_metrics"), [(True, {"orders": 8, "mail": {"sent": 2}}), (False, {"orders": 8})]
)
def test_new_metrics_wait_for_a_new_answer(
    client: MakeClient, scripted_server: ScriptedServer, answer: bool, later_metrics: dict[str, object]
) -> None:
    user = User(True, None, answer)
    metrics: dict[str, object] = {"orders": 8}
    telemetry = client(consent="opt-in", consent_callback=user)
    telemetry.provider(lambda: metrics)
    assert telemetry.report_now().sent
    metrics["mail"] = {"sent": 2}
    assert [telemetry.report_now().sent for _ in range(2)] == [True] * 2  # asked once, without an answer
    again = client(consent="opt-in", consent_callback=user)
    again.provider(lambda: metrics)
    assert [again.report_now().sent for _ in range(2)] == [True] * 2
    assert scripted_server.metrics == [{"orders": 8}] * 3 + [later_metrics] * 2
    assert [(request.new_names, request.is_first) for request in user.requests] == [
        (("orders",), True),
        (("mail.sent",), False),
        (("mail.sent",), False),
    ]


def test_only_growth_is_asked_about_again(client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """A metric that is no longer collected, and one that comes back, are covered by the first answer."""
    user = User(True)
    metrics: dict[str, object] = {"orders": 8, "mail": {"sent": 2}}
    telemetry = client(consent="opt-in", consent_callback=user)
    telemetry.provider(lambda: metrics)
    mail = metrics["mail"]
    assert telemetry.report_now().sent
    del metrics["mail"]
    assert telemetry.report_now().sent
    metrics["mail"] = mail
    assert telemetry.report_now().sent
    assert scripted_server.metrics == [
        {"orders": 8, "mail": {"sent": 2}},
        {"orders": 8},
        {"orders": 8, "mail": {"sent": 2}},
    ]
    assert len(user.requests) == 1
    assert "mail" not in json.dumps(choice_file(tmp_path))


def test_turning_on_covers_the_metrics_of_the_next_report(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    metrics: dict[str, object] = {"orders": 8}
    telemetry = client(consent="opt_in")
    telemetry.provider(lambda: metrics)
    assert telemetry.report_now().result is Result.PENDING
    assert telemetry.turn_on().is_done
    assert telemetry.report_now().sent
    metrics["locale"] = "fr"
    assert telemetry.report_now().sent
    assert scripted_server.metrics == [{"orders": 8}] * 2
    assert choice_file(tmp_path)["metric_hashes"] == [hash_name("orders")]


def test_a_failing_callback_is_no_agreement(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(request: ConsentRequest) -> bool:
        raise RuntimeError(request.app_name)

    telemetry = client(consent="opt-in", consent_callback=ask)
    telemetry.provider(lambda: {"orders": 8})
    assert telemetry.report_now().result is Result.PENDING
    assert "the consent callback failed: RuntimeError" in caplog.text
    assert scripted_server.connections == []


def test_the_notice_is_shown_once_before_the_first_report(
    client: MakeClient, scripted_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for expected in (Result.PENDING, Result.SENT):
        telemetry = client(consent="notice")
        telemetry.provider(lambda: {"orders": 8})
        assert telemetry.report_now().result is expected
    notice = capsys.readouterr().err
    assert notice.startswith(f"Café Ledger reports usage figures to {scripted_server.url}: orders.\n")
    assert notice.count("Café Ledger reports") == 1


def test_the_answer_to_a_notice_may_be_no(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client(consent="notice", consent_callback=User(False))
    telemetry.provider(lambda: {"orders": 8})
    assert [telemetry.report_now().result for _ in range(2)] == [Result.OFF] * 2
    assert scripted_server.connections == []


def test_a_notice_that_cannot_be_stored_is_shown_once_in_a_process(
    client: MakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").touch()
    telemetry = client(consent="notice")
    telemetry.provider(lambda: {"orders": 8})
    assert [telemetry.report_now().result for _ in range(2)] == [Result.PENDING, Result.SENT]
    assert capsys.readouterr().err.count("usage figures") == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"telemetry": "maybe"}', '{"metric_hashes": "all"}', "[" * 9999])
def test_a_damaged_choice_is_a_refusal(
    client: MakeClient, scripted_server: ScriptedServer, tmp_path: Path, content: str
) -> None:
    telemetry = client()
    file = tmp_path / "data" / "cafe-ledger_telemetry_choice.json"
    file.parent.mkdir()
    file.write_text(content)
    assert telemetry.report_now().result is Result.OFF
    assert scripted_server.connections == []


def test_an_unknown_mode_is_a_mistake(client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client(consent="maybe").report_now().result is Result.OFF
    assert "consent must be one of opt-out, notice, opt-in" in caplog.text


def test_the_command_of_the_notice_refuses_for_this_application(
    client: MakeClient,
    scripted_server: ScriptedServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for another application of the user, and not in a directory that the host does not read."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    another = Client(scripted_server.url, "Another", "1")
    assert another.report_now().sent
    telemetry = client(consent="notice")
    assert telemetry.report_now().result is Result.PENDING
    (command,) = re.findall("To refuse: python (.*), or", capsys.readouterr().err)
    done = subprocess.run([sys.executable, *shlex.split(command)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "telemetry of Café Ledger is off.")
    assert telemetry.report_now().result is Result.OFF
    assert another.report_now().sent
    assert command_options(
        load_configuration({"app_name": "Another"}, os.environ, optional=("server_url", "app_version"))
    ) == ("--app-name Another")
