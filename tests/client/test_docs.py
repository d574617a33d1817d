"""docs/feed.md matches the code, and both of its example subscribers work unchanged."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import pytest

import shm.server.handlers.feed
import shm_client
from shm.analytics.kpis import ApplicationKpis
from shm.core.settings import Settings
from shm.feed import kpi_publisher
from shm.feed.frames import Hello, InstanceChanged, InstanceRemoved, Resync
from shm_client import instance_tracker
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

GUIDE = (Path(__file__).parents[2] / "docs/feed.md").read_text(encoding="utf-8")
HINT = "correct docs/feed.md"
TIMEOUT_S = 60
MAX_LINES = 30


def block(language: str) -> str:
    """The only example in a language."""
    (example,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return str(example)


def members(text: str) -> list[str]:
    """The names in backquotes in the first column of a table."""
    return re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *(
            (frame.__struct_config__.tag, frame.__struct_fields__)
            for frame in (Hello, InstanceChanged, InstanceRemoved, Resync)
        ),
        ("kpis", ("cursor", *ApplicationKpis.__struct_fields__)),
    ],
)
def test_each_message_is_documented_with_its_members(kind: str, fields: tuple[str, ...]) -> None:
    _, _, section = GUIDE.partition(f"### `{kind}`\n")
    assert members(section.split("\n#")[0]) == list(fields), HINT


def test_the_parameters_are_documented() -> None:
    _, _, section = GUIDE.partition("## The address\n")
    assert members(section.split("\n#")[0]) == list(shm.server.handlers.feed.FeedQuery.__struct_fields__), HINT


def test_the_close_codes_are_documented() -> None:
    source = shm.server.handlers.feed
    codes = {source.GOING_AWAY, source.POLICY_VIOLATION, source.INTERNAL_ERROR, source.TRY_AGAIN_LATER}
    assert {int(code) for code in re.findall(r"^\| (\d{4}) \|", GUIDE, re.MULTILINE)} == codes, HINT


def test_each_client_event_is_documented_with_its_members() -> None:
    documented = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", GUIDE, re.MULTILINE))
    events = get_args(shm_client.FeedEvent)
    assert documented == {event.__name__: ", ".join(event.__dataclass_fields__) for event in events}, HINT


@pytest.mark.parametrize(
    "sentence",
    [
        f"heartbeat of {Settings().heartbeat.seconds} seconds (`SHM_FEED_HEARTBEAT`)",
        f"at most {1 / kpi_publisher.READ_INTERVAL_S:.0f}".replace("2", "two") + " a second",
        f"for {'a day' if Settings().feed_memory.days == 1 else '?'} (`SHM_FEED_MEMORY`)",
        f"keeps track of up to {instance_tracker.MAX_INSTANCES:,}",
    ],
)
def test_the_documented_numbers_match_the_code(sentence: str) -> None:
    assert sentence in " ".join(GUIDE.split()), HINT


class SubscriberProcess:
    """A subscriber in a process and a folder of its own."""

    def __init__(
        self,
        command: list[str],
        server: ServerProcess,
        folder: Path,
        token: str | None = None,
        programs: str = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    ) -> None:
        self.folder = folder
        self.output = folder / "output"
        environment = {"SHM_SERVER": server.url, "SHM_TOKEN": token or server.admin_token, "PATH": programs}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits for a condition while the subscriber runs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)

    def last_line_contains(self, text: str) -> bool:
        """Whether the last line of the output contains the text."""
        lines = self.output.read_text().splitlines()
        return bool(lines) and text in lines[-1]

    def mirror(self) -> dict[str, Any]:
        """The instances in the files of the shell subscriber."""
        try:
            return {file.stem: json.loads(file.read_text()) for file in (self.folder / "mirror").glob("*.json")}
        except (ValueError, FileNotFoundError):  # the subscriber is writing or removing a file
            return {}


@contextmanager
def running_example(
    example: str, server: ServerProcess, folder: Path, token: str | None = None
) -> Iterator[SubscriberProcess]:
    """A subscriber from the documentation, killed at the end with its child processes."""
    command = {"python": [sys.executable, "-W", "error", "-c"], "bash": ["bash", "-c"]}[example]
    subscriber = SubscriberProcess([*command, block(example)], server, folder, token)
    try:
        yield subscriber
    finally:
        with suppress(ProcessLookupError):  # all of its processes have ended
            os.killpg(subscriber.process.pid, signal.SIGKILL)
        subscriber.process.wait()


def list_instances(server: ServerProcess) -> dict[str, Any]:
    """Every instance by its ID."""
    return {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}


def test_the_python_subscriber_survives_a_killed_server(server: ServerProcess, tmp_path: Path) -> None:
    assert len(block("python").splitlines()) <= MAX_LINES
    installs = [Install(server.url).enroll({"n": 1}) for _ in range(3)]
    with running_example("python", server, tmp_path) as subscriber:
        subscriber.wait_until(lambda: subscriber.last_line_contains("3 instances"))
        Install(server.url, app_name="Kiosk").enroll({"n": 1})
        subscriber.wait_until(lambda: subscriber.last_line_contains("4 instances, 2 applications"))
        server.kill()
        subscriber.wait_until(lambda: "; again in " in subscriber.output.read_text())
        server.start()
        act(installs[0], "erase")
        subscriber.wait_until(lambda: subscriber.last_line_contains("3 instances, 2 applications"))


def test_the_shell_subscriber_survives_a_killed_server(server: ServerProcess, tmp_path: Path) -> None:
    installs = [Install(server.url).enroll({"n": 1, "text": "ü\u2028'\n"}) for _ in range(3)]
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.wait_until(lambda: subscriber.mirror() == list_instances(server))
        installs[1].snapshot({"n": 2})
        act(installs[0], "erase")
        subscriber.wait_until(lambda: subscriber.mirror() == list_instances(server))
        assert server.admin_token not in command_lines(subscriber.process.pid)
        server.kill()
        server.start()
        act(installs[1], "erase")
        installs[2].snapshot({"n": 3})
        Install(server.url).enroll({"n": 4})
        there = list_instances(server)
        subscriber.wait_until(lambda: subscriber.mirror() == there)
        assert len(there) == 2


@pytest.mark.long
def test_the_shell_subscriber_lists_again_after_an_unknown_cursor(
    server: ServerProcess, database: str, tmp_path: Path
) -> None:
    gone, stays = (Install(server.url).enroll({"n": number}) for number in range(2))
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.wait_until(lambda: subscriber.mirror() == list_instances(server))
        server.kill()
        with admin_cursor(database) as cursor:  # as after restoring a backup from before `gone` registered
            cursor.execute("UPDATE feed_head SET cursor = 1, horizon = 0")
            cursor.execute("UPDATE instances SET cursor = 1 WHERE instance_id = %s", (stays.instance_id,))
            cursor.execute("DELETE FROM instances WHERE instance_id = %s", (gone.instance_id,))
        server.start()
        subscriber.wait_until(lambda: subscriber.mirror().keys() == {stays.instance_id})


@pytest.mark.parametrize("example", ["python", "bash"])
def test_a_subscriber_ends_when_its_token_is_refused(server: ServerProcess, tmp_path: Path, example: str) -> None:
    with running_example(example, server, tmp_path, "shm_wrong-token-wrong-token") as subscriber:
        assert subscriber.process.wait(TIMEOUT_S) != 0
        assert "401" in subscriber.output.read_text() or "does not accept the token" in subscriber.output.read_text()


@pytest.mark.parametrize("missing", ["curl", "sed", "python3", "websocket-client"])
def test_the_shell_subscriber_ends_when_a_program_is_missing(
    shared_server: ServerProcess, tmp_path: Path, missing: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in {"bash", "cat", "curl", "mkdir", "rm", "sed", "sleep", "touch", "tr"} - {missing}:
        (programs / name).symlink_to(str(shutil.which(name)))
    if missing != "python3":
        option = "-S" if missing == "websocket-client" else ""  # without the directory of installed packages
        (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} {option} "$@"\n')
        (programs / "python3").chmod(0o755)
    script = SubscriberProcess(["bash", "-c", block("bash")], shared_server, tmp_path, programs=str(programs))
    assert script.process.wait(TIMEOUT_S) == 1
    assert script.output.read_text().startswith(f"{missing} is missing: ")
    assert not (tmp_path / "mirror").exists()


def test_the_shell_subscriber_refuses_a_foreign_folder(shared_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "mine.json").write_text("{}")
    script = SubscriberProcess(["bash", "-c", block("bash")], shared_server, tmp_path)
    assert script.process.wait(TIMEOUT_S) == 1
    assert "mirror was not made by this script" in script.output.read_text()
    assert [file.name for file in (tmp_path / "mirror").iterdir()] == ["mine.json"]


def test_the_shell_subscriber_reuses_its_own_folder(server: ServerProcess, tmp_path: Path) -> None:
    install = Install(server.url).enroll({"n": 1})
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.wait_until(lambda: subscriber.mirror() == list_instances(server))
    act(install, "erase")
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.wait_until(lambda: not list((tmp_path / "mirror").glob("*.json")))


def command_lines(session: int) -> str:
    """The command lines of a session's processes, which every user of the machine can read."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                lines.append((process / "cmdline").read_text())
        except (ProcessLookupError, FileNotFoundError):
            continue
    assert any("wsdump" in line for line in lines)
    return "\n".join(lines)
