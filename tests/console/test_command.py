"""`shm console --once`, and what it says when it cannot be opened: real processes."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.installs import Install
from tests.support.server_process import ServerProcess, free_port
from tests.support.shm_command import run_shm


def console(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`shm console`, without a terminal."""
    return run_shm("console", *arguments, **{"SHM_DATA_DIR": "/nonexistent"} | environment)


def test_once_prints_the_same_as_text_and_as_json(server: ServerProcess) -> None:
    for number in range(3):
        Install(server.url, environment="ci" if number else "production").enroll(
            {"sent": 10**30 + number, "ratio": 0.25, "beta": True, "db": "pg"}
        )
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    text = console(*options, COLUMNS="200").stdout
    report = json.loads(console(*options, "--json").stdout)
    assert report["stats"]["total_instances"] == 3
    assert "3 instances, 3 active (1 counted, 2 dev and ci excluded)" in text
    (application,) = report["applications"]
    assert application["application"]["instances"]["counted"] == 1
    values = {kpi["key"]: kpi["value"] for kpi in application["kpis"]}
    assert values == {"sent": 3 * 10**30 + 3, "ratio": 0.25}
    assert f"{3 * 10**30 + 3:,}" in text
    assert {line["state"] for line in report["instances"]} == {"active", "uncounted"}
    for line in report["instances"]:
        assert f"{line['state']}" in text
        assert line["instance"]["instance_id"][:8] in text
    assert all(len(line) <= 200 for line in text.splitlines())


def test_once_prints_nothing_that_a_terminal_obeys(server: ServerProcess) -> None:
    Install(server.url, app_name="\x1b]52;c;aGk=\x07evil\x1b[2J").enroll({"\x1b[31m": 1, "t": "\x9b"})
    done = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert done.returncode == 0
    assert "evil" in done.stdout
    assert all(character == "\n" or character.isprintable() for character in done.stdout)


def test_numbers_of_any_size_can_be_printed_once(server: ServerProcess) -> None:
    Install(server.url).enroll({"n": 1e300, "mean_n": 1e300})
    Install(server.url).enroll({"n": 1e-300, "mean_n": 1 / 3})
    done = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_screenshot_that_cannot_be_written_is_said_in_a_sentence(shared_server: ServerProcess) -> None:
    options = (
        "--server",
        shared_server.url,
        "--data-dir",
        str(shared_server.data_dir),
        "--screenshot",
        "/dev/null/x.svg",
    )
    done = console(*options)
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)


def test_an_empty_server_says_so(server: ServerProcess) -> None:
    done = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert (done.returncode, "No instance has reported yet" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "sentence"),
    [
        (("--once",), {}, 1, "no token"),
        (("--once", "--server", "ftp://x"), {"SHM_TOKEN": "x"}, 1, "not a server's address"),
        (("--json",), {"SHM_TOKEN": "x"}, 2, "requires --once"),
        (("--size", "big"), {"SHM_TOKEN": "x"}, 2, "120x36"),
        ((), {"SHM_TOKEN": "x"}, 1, "needs a terminal"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], status: int, sentence: str
) -> None:
    done = console(*arguments, **environment)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_away_or_refuses_is_told_in_a_sentence(shared_server: ServerProcess) -> None:
    away = console("--server", f"http://127.0.0.1:{free_port()}", "--once", SHM_TOKEN="x" * 30)
    refused = console("--server", shared_server.url, "--once", SHM_TOKEN="x" * 30)
    for done, sentence in ((away, "no answer from"), (refused, "does not accept the token")):
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert "x" * 30 not in done.stderr
        assert "Traceback" not in done.stderr


def test_a_screenshot_shows_the_fleet(server: ServerProcess, tmp_path: Path) -> None:
    Install(server.url).enroll({"pizzas_eaten": 10})
    file = tmp_path / "screen.svg"
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--screenshot", str(file))
    assert console(*options, "--size", "100x30").returncode == 0
    drawn = file.read_text()
    assert drawn.startswith("<svg")
    assert "Ledger" in drawn
    assert "PIZZAS" in drawn
