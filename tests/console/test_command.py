"""`shm console` in real processes: `--once`, screenshots, and errors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.databases import execute
from tests.support.installs import Install
from tests.support.server_process import ServerProcess, free_port
from tests.support.shm_command import run_shm


def console(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`shm console`, without a terminal."""
    return run_shm("console", *arguments, **{"SHM_DATA_DIR": "/nonexistent"} | environment)


def test_once_prints_the_same_data_as_text_and_as_json(server: ServerProcess) -> None:
    for number in range(3):
        Install(server.url, environment="ci" if number else "production").enroll(
            {"sent": 10**30 + number, "ratio": 0.25, "beta": True, "db": "pg"}
        )
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    text = console(*options, COLUMNS="200").stdout
    report = json.loads(console(*options, "--json").stdout)
    assert report["stats"]["total_instances"] == 3
    assert "3 instances, 3 active (1 counted, 2 excluded as dev, ci or ephemeral)" in text
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


def test_once_warns_before_the_database_is_full(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_MAX_DISK="1g")
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert "full" not in console(*options).stdout
    execute(
        database,
        "INSERT INTO database_sizes SELECT now() - interval '1 day', pg_database_size(current_database()) - 300 * 2^20",
    )
    assert "\n\ndatabase full in 3d\n" in console(*options).stdout


def test_once_prints_no_control_characters(server: ServerProcess) -> None:
    Install(server.url, app_name="\x1b]52;c;aGk=\x07evil\x1b[2J").enroll({"\x1b[31m": 1, "t": "\x9b"})
    completed = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert completed.returncode == 0
    assert "evil" in completed.stdout
    assert all(character == "\n" or character.isprintable() for character in completed.stdout)


def test_numbers_of_any_size_can_be_printed_once(server: ServerProcess) -> None:
    Install(server.url).enroll({"n": 1e300, "mean_n": 1e300})
    Install(server.url).enroll({"n": 1e-300, "mean_n": 1 / 3})
    completed = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert (completed.returncode, completed.stderr) == (0, "")


def test_an_unwritable_screenshot_is_reported_in_a_sentence(shared_server: ServerProcess) -> None:
    options = (
        "--server",
        shared_server.url,
        "--data-dir",
        str(shared_server.data_dir),
        "--screenshot",
        "/dev/null/x.svg",
    )
    completed = console(*options)
    assert (completed.returncode, "cannot be written" in completed.stderr) == (1, True)


def test_once_reports_an_empty_server(server: ServerProcess) -> None:
    completed = console("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    assert (completed.returncode, "No instance has reported yet" in completed.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "sentence"),
    [
        (("--once",), {}, 1, "no token"),
        (("--once", "--server", "ftp://x"), {"SHM_TOKEN": "x"}, 1, "not a server's address"),
        (("--json",), {"SHM_TOKEN": "x"}, 2, "requires --once"),
        (("--watch", "5"), {"SHM_TOKEN": "x"}, 2, "--watch requires --once"),
        (("--once", "--watch", "0.1"), {"SHM_TOKEN": "x"}, 2, "at least 1 second"),
        (("--once", "--view", "at=2026-11-01 30d"), {"SHM_TOKEN": "x"}, 2, "not for instances"),
        (("--once", "--json", "--format", "csv"), {"SHM_TOKEN": "x"}, 2, "exclude each other"),
        (("--once", "--columns", "version", "--view", "versions"), {"SHM_TOKEN": "x"}, 2, "--columns chooses"),
        (("--once", "--sort", "sent", "--view", "versions"), {"SHM_TOKEN": "x"}, 2, "--sort is for the list"),
        (
            ("--once", "--view", "instances at=2026-11-01"),
            {"SHM_TOKEN": "x"},
            2,
            "at is for the views versions and metric",
        ),
        (("--once", "--filter", "env:ci", "--view", "events"), {"SHM_TOKEN": "x"}, 2, "not for events"),
        (("--size", "big"), {"SHM_TOKEN": "x"}, 2, "120x36"),
        ((), {"SHM_TOKEN": "x"}, 1, "needs a terminal"),
    ],
)
def test_wrong_options_are_reported_in_a_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], status: int, sentence: str
) -> None:
    completed = console(*arguments, **environment)
    assert completed.returncode == status
    assert sentence in completed.stderr
    assert "Traceback" not in completed.stderr
    assert completed.stdout == ""


def test_an_unreachable_or_refusing_server_is_reported(shared_server: ServerProcess) -> None:
    unreachable = console("--server", f"http://127.0.0.1:{free_port()}", "--once", SHM_TOKEN="x" * 30)
    refused = console("--server", shared_server.url, "--once", SHM_TOKEN="x" * 30)
    for completed, sentence in ((unreachable, "no answer from"), (refused, "does not accept the token")):
        assert (completed.returncode, completed.stdout) == (1, "")
        assert sentence in completed.stderr
        assert "x" * 30 not in completed.stderr
        assert "Traceback" not in completed.stderr


@pytest.mark.parametrize(("address", "is_warned"), [("http://shm.invalid", True), ("https://shm.invalid", False)])
def test_an_unencrypted_address_of_another_machine_gets_a_warning(address: str, is_warned: bool) -> None:
    done = run_shm("console", "--once", "--server", address, "--token", "a-token")
    assert done.returncode == 1
    assert ("others on the network can read the token" in done.stderr) == is_warned


def test_a_screenshot_shows_the_fleet(server: ServerProcess, tmp_path: Path) -> None:
    Install(server.url).enroll({"pizzas_eaten": 10})
    file = tmp_path / "screen.svg"
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--screenshot", str(file))
    assert console(*options, "--size", "100x30").returncode == 0
    svg = file.read_text()
    assert svg.startswith("<svg")
    assert "Ledger" in svg
    assert "PIZZAS" in svg


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.long)])
def test_once_prints_in_any_encoding(server: ServerProcess, encoding: str) -> None:
    """Missing characters keep the columns of a table aligned, and JSON and CSV keep the values."""
    Install(server.url, app_name="日本 \U0001f600…").enroll({"sent": 1})
    Install(server.url, app_name="Ledger").enroll({"sent": 1})
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    text, document = console(*options, **environment), console(*options, "--json", **environment)
    table = console(*options, "--columns", "application,version", **environment)
    rows = console(*options, "--view", "fleet", "--format", "csv", **environment)
    assert [completed.returncode for completed in (text, document, table, rows)] == [0, 0, 0, 0]
    assert (text.stdout + document.stdout + table.stdout + rows.stdout).isascii()
    assert (document.stderr, rows.stderr) == ("", "")
    name = {"ascii": "ascii", "latin-1": "iso8859-1"}[encoding]
    note = f"shm console: The encoding {name} lacks characters, which are ?; --format has them as escapes.\n"
    assert (text.stderr, table.stderr) == (note, note)
    assert "* active" in text.stdout
    assert "???? ??." in text.stdout
    assert sorted(table.stdout.splitlines()[1:]) == ["  ???? ??.     1.4.2", "  Ledger       1.4.2"]
    applications = json.loads(document.stdout)["applications"]
    assert "日本 \U0001f600…" in [application["application"]["name"] for application in applications]
    assert "\\u65e5\\u672c" in rows.stdout


def test_once_prints_a_view_and_a_filtered_list(server: ServerProcess) -> None:
    for number in range(3):
        Install(server.url, app_version=f"1.{number}").enroll({"sent": number, "db": "pg"})
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    text = console(*options, "--view", "versions 7d", COLUMNS="80", PYTHONIOENCODING="ascii", PYTHONUTF8="0").stdout
    assert "1.2 is the latest: 33 % run it" in text
    assert text.isascii()
    assert all(len(line) <= 80 for line in text.splitlines())
    document = json.loads(console(*options, "--json", "--view", "breakdown/version/sent").stdout)
    assert document["place"] == "ledger/breakdown/version/sent 30d"
    groups = document["data"]["breakdown"]["values"]
    assert {group["value"]: group["metric"] for group in groups} == {"1.0": 0, "1.1": 1, "1.2": 2}
    report = json.loads(console(*options, "--json", "--view", "sort=-sent /version>=1.1 sent>0").stdout)
    assert [line["instance"]["app_version"] for line in report["instances"]] == ["1.2", "1.1"]
    assert report["matching_instances"] == 2
    refused = console(*options, "--view", "/anything")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "a term that only the console evaluates" in refused.stderr
    assert console("--once", "--view", "nobody/graph", SHM_TOKEN="x").returncode == 2


def test_once_names_the_columns_that_have_no_room(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 1, "beta": True})
    options = ("--server", server.url, "--data-dir", str(server.data_dir), "--once")
    narrow, wide = console(*options, COLUMNS="80"), console(*options, COLUMNS="200")
    note = "INSTANCES: 80 columns have no room for: "
    (line,) = [line for line in narrow.stderr.splitlines() if note in line]
    missing = line.split(note)[1].split(".")[0].split(", ")
    assert {"seen", "metrics"} <= set(missing)
    assert wide.stderr == ""
    header = next(line for line in wide.stdout.splitlines() if line.lstrip().startswith("state"))
    assert {name.removesuffix(" (cut)") for name in missing} <= set(header.split())
    assert all(len(line) <= 80 for line in narrow.stdout.splitlines())
