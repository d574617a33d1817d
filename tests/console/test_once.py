"""`shm console --once` in pipes and scripts: rows in a format, exit status, repetition, closed pipes."""

import csv
import json
import os
import re
import signal
import subprocess

import pytest

from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM, run_shm


def once(server: ServerProcess, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`shm console --once` on a server."""
    token = {"SHM_TOKEN": server.admin_token} | environment
    return run_shm("console", "--server", server.url, "--once", *arguments, **token)


@pytest.fixture
def fleet(server: ServerProcess) -> ServerProcess:
    """A server with three production installs and one of another environment."""
    for number in range(3):
        Install(server.url, app_version=f"1.{number}").enroll({"sent": 10**20 + number, "list": [1], "note": "a,=b"})
    Install(server.url, environment="ci", app_name="日本").enroll({"sent": 7})
    return server


def test_rows_have_the_filter_the_order_and_the_columns(fleet: ServerProcess) -> None:
    chosen = ("--columns", "version,metrics.sent,last_seen_at,typo", "--filter", "env:prod", "--sort=-sent")
    completed = once(fleet, "--app", "ledger", "--format", "csv", *chosen)
    rows = list(csv.DictReader(completed.stdout.splitlines()))
    assert [(row["app_version"], row["metrics.sent"]) for row in rows] == [
        (f"1.{number}", str(10**20 + number)) for number in (2, 1, 0)
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", rows[0]["last_seen_at"])
    assert (completed.returncode, completed.stderr) == (0, "shm console: No row has a value of: metrics.typo.\n")
    text = once(fleet, "--app", "ledger", *chosen, "--sort=-sennt")
    assert text.stderr.splitlines() == [
        "shm console: No instance has the metric sennt, by which --sort orders.",
        "shm console: No row has a value of: metrics.typo.",
    ]
    text = once(fleet, "--app", "ledger", *chosen)
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["version", "1.2", "1.1", "1.0"]


def test_json_lines_have_everything_in_any_encoding(fleet: ServerProcess) -> None:
    completed = once(fleet, "--format", "jsonl", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    records = [json.loads(line) for line in completed.stdout.splitlines()]
    assert (completed.returncode, completed.stderr, completed.stdout.isascii()) == (0, "", True)
    assert {record["app_name"] for record in records} == {"Ledger", "日本"}
    assert {"sent": 10**20, "list": [1], "note": "a,=b"} in [record["metrics"] for record in records]


def test_a_view_has_rows_too(fleet: ServerProcess) -> None:
    completed = once(fleet, "--app", "ledger", "--view", "versions", "--format", "markdown", "--columns", "version")
    assert completed.stdout == "| version |\n| --- |\n| 1.2 |\n| 1.1 |\n| 1.0 |\n"
    unknown = once(fleet, "--app", "ledger", "--view", "versions", "--format", "csv", "--columns", "absent")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no column absent, only version, instances" in unknown.stderr


def test_a_view_has_data_and_no_keys_of_the_screen(fleet: ServerProcess) -> None:
    settings = once(fleet, "--app", "ledger", "--view", "application")
    assert settings.stdout.splitlines()[0].split("  ·  ")[0].split() == ["Ledger", "3", "instances"]
    assert "sent" in settings.stdout.splitlines()[-1]
    assert [text for text in ("⏎", "Merge", "Delete") if text in settings.stdout] == []
    single = once(fleet, "--view", "lifecycle", "--app", _slug(fleet, "日本"))
    assert [line.split()[0] for line in single.stdout.splitlines() if re.match(r" *\d+ │", line)] == ["1", "0"]


def _slug(server: ServerProcess, name: str) -> str:
    rows = csv.DictReader(once(server, "--view", "fleet", "--format", "csv").stdout.splitlines())
    return next(row["slug"] for row in rows if row["name"] == name)


def test_pre_releases_are_0_behind_a_latest_release_that_is_not_listed(server: ServerProcess) -> None:
    for version in [*(f"1.{minor}" for minor in range(19)), "3.0-rc1"]:
        for _ in range(2):
            Install(server.url, app_version=version).enroll()
    Install(server.url, app_version="2.0").enroll()
    listed = csv.DictReader(
        once(server, "--app", "ledger", "--view", "versions", "--format", "csv").stdout.splitlines()
    )
    behind = {row["version"]: row["releases_behind"] for row in listed}
    assert len(behind) == 20
    assert "2.0" not in behind
    assert (behind["3.0-rc1"], behind["1.18"], behind["1.0"]) == ("0", "1", "19")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("--filter", "env:nowhere", "--format", "csv"), 3, "No instance matches"),
        (("--filter", "env:nowhere", "--columns", "version"), 3, "No instance matches"),
        (("--view", "fleet", "--filter", "nobody"), 3, "No application matches"),
        (("--filter", "sent>", "--format", "csv"), 2, "is invalid"),
        (("--app", "nobody", "--format", "csv"), 2, "no application has the slug nobody; there are: "),
        (("--view", "nonsense"), 2, "The views are: fleet, instances, "),
        (("--view", "nobody/versions", "--json"), 2, "no application has the slug nobody; there are: "),
        (("--view", "instance/ffffffff"), 2, "No instance has this ID"),
        (("--view", "metric/absent"), 2, "has no metric absent; it has: "),
        (("--view", "metric/absent", "--format", "csv"), 2, "has no metric absent; it has: "),
        (("--view", "metric/sent/absent/missing", "--json"), 2, "has no metric missing, absent; it has: "),
        (("--view", "breakdown/absent"), 2, "has no metric absent; it has: "),
        (("--view", "breakdown/version/absent"), 2, "has no metric absent; it has: "),
        (("--view", "metric/sent/version"), 0, ""),
        (("--columns", "version,snet"), 0, "No row has a value of: metrics.snet."),
        (
            (
                "--filter",
                "env:ci",
            ),
            0,
            "",
        ),
    ],
)
def test_a_script_can_tell_the_outcomes_apart(
    shared_server: ServerProcess, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    Install(shared_server.url, environment="ci").enroll({"sent": 1})
    completed = once(shared_server, *arguments)
    assert (completed.returncode, sentence in completed.stderr) == (status, True), completed.stderr
    assert status != 2 or not completed.stdout
    assert "Traceback" not in completed.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--format", "csv")])
def test_a_view_of_a_new_server_says_that_nothing_reported(server: ServerProcess, arguments: tuple[str, ...]) -> None:
    for view in ("versions", "application", "metric/sent"):
        completed = once(server, "--view", view, *arguments)
        sentence = f"shm console: {view.split('/')[0]} is of one application, and none has reported yet\n"
        assert (completed.returncode, completed.stdout, completed.stderr) == (1, "", sentence)


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--format", "csv"), ("--columns", "version")])
def test_a_closed_output_is_an_error_in_a_sentence(fleet: ServerProcess, arguments: tuple[str, ...]) -> None:
    command = [*SHM, "console", "--server", fleet.url, "--once", *arguments]
    for stream, status in ((1, 1), (2, 0)):
        completed = subprocess.run(
            ["sh", "-c", f'exec "$@" {stream}>&-', "sh", *command],
            env=os.environ | {"SHM_TOKEN": fleet.admin_token},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (completed.returncode, "Traceback" in completed.stderr) == (status, False), completed.stderr
        assert bool(completed.stdout) == (stream == 2)
        assert ("standard output cannot be written" in completed.stderr) == (stream == 1)


def test_watch_ends_quietly_at_an_interrupt_or_a_closed_pipe(fleet: ServerProcess) -> None:
    command = [*SHM, "console", "--server", fleet.url, "--once", "--json", "--watch", "1"]
    environment = os.environ | {"SHM_TOKEN": fleet.admin_token}
    for ending in ("interrupt", "close"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        assert process.stderr is not None
        documents = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert documents[0]["as_of"] < documents[1]["as_of"]
        if ending == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
        assert process.wait(60) == (130 if ending == "interrupt" else 1)
        assert process.stderr.read() == b""
        process.stderr.close()
        process.stdout.close()
