"""docs/feed.md tells what the code does, and both subscribers in it work as they stand there."""

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
from typing import Any

import pytest

import shm.handlers.feed
import shm_client
from shm import board
from shm.frames import Hello, InstanceChanged, InstanceRemoved, Resync
from shm.kpis import ApplicationKpis
from shm.settings import Settings
from shm_client import known
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

GUIDE = (Path(__file__).parents[2] / "docs/feed.md").read_text(encoding="utf-8")
MEND = "mend docs/feed.md"
LIMIT_S = 60
MOST_LINES = 30


def block(language: str) -> str:
    """The one example in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return str(found)


def members(text: str) -> list[str]:
    """What stands in backquotes in the first cells of a table."""
    return re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *((one.__struct_config__.tag, one.__struct_fields__) for one in (Hello, InstanceChanged)),
        *((one.__struct_config__.tag, one.__struct_fields__) for one in (InstanceRemoved, Resync)),
        ("kpis", ("cursor", *ApplicationKpis.__struct_fields__)),
    ],
)
def test_each_message_stands_with_all_its_members(kind: str, fields: tuple[str, ...]) -> None:
    _, _, said = GUIDE.partition(f"### `{kind}`\n")
    assert members(said.split("\n#")[0]) == list(fields), MEND


def test_the_parameters_are_those_that_there_are() -> None:
    _, _, said = GUIDE.partition("## The address\n")
    assert members(said.split("\n#")[0]) == list(shm.handlers.feed.FeedQuery.__struct_fields__), MEND


def test_each_close_code_stands_and_no_other() -> None:
    source = shm.handlers.feed
    codes = {source.GOING_AWAY, source.NOT_ALLOWED, source.FAULT, source.TRY_AGAIN}
    assert {int(code) for code in re.findall(r"^\| (\d{4}) \|", GUIDE, re.MULTILINE)} == codes, MEND


def test_each_change_of_the_client_stands_with_its_members() -> None:
    documented = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", GUIDE, re.MULTILINE))
    changes = (shm_client.Put, shm_client.Removed, shm_client.KpisMoved, shm_client.Listed, shm_client.Connected)
    assert documented == {one.__name__: ", ".join(one.__dataclass_fields__) for one in (*changes, shm_client.Away)}, (
        MEND
    )


@pytest.mark.parametrize(
    "sentence",
    [
        f"heartbeat of {Settings().heartbeat.seconds} seconds (`SHM_FEED_HEARTBEAT`)",
        f"at most {1 / board.PAUSE_S:.0f}".replace("2", "two") + " a second",
        f"for {'a day' if Settings().feed_memory.days == 1 else '?'} (`SHM_FEED_MEMORY`)",
        f"keeps track of up to {known.MOST_INSTANCES:,}",
    ],
)
def test_numbers_are_those_of_the_code(sentence: str) -> None:
    assert sentence in " ".join(GUIDE.split()), MEND


class Running:
    """A subscriber as a process of its own, in a folder of its own."""

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
        said = {"SHM_SERVER": server.url, "SHM_TOKEN": token or server.admin_token, "PATH": programs}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | said,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def until(self, condition: Callable[[], object]) -> None:
        """Waits until something holds, for as long as the subscriber runs."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)

    def says(self, text: str) -> bool:
        """Whether its last line is this one."""
        lines = self.output.read_text().splitlines()
        return bool(lines) and text in lines[-1]

    def mirror(self) -> dict[str, Any]:
        """The files that the shell's subscriber keeps."""
        try:
            return {file.stem: json.loads(file.read_text()) for file in (self.folder / "mirror").glob("*.json")}
        except (ValueError, FileNotFoundError):  # it is about to write or to remove one
            return {}


@contextmanager
def running_example(example: str, server: ServerProcess, folder: Path, token: str | None = None) -> Iterator[Running]:
    """A subscriber of the documentation, ended with all that it has started."""
    command = {"python": [sys.executable, "-W", "error", "-c"], "bash": ["bash", "-c"]}[example]
    subscriber = Running([*command, block(example)], server, folder, token)
    try:
        yield subscriber
    finally:
        with suppress(ProcessLookupError):  # it has ended, and whatever it started
            os.killpg(subscriber.process.pid, signal.SIGKILL)
        subscriber.process.wait()


def listed(server: ServerProcess) -> dict[str, Any]:
    """Every instance by its ID."""
    return {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}


def test_the_subscriber_in_python_follows_and_goes_on_after_the_server_was_killed(
    server: ServerProcess, tmp_path: Path
) -> None:
    assert len(block("python").splitlines()) <= MOST_LINES
    installs = [Install(server.url).arrived({"n": 1}) for _ in range(3)]
    with running_example("python", server, tmp_path) as subscriber:
        subscriber.until(lambda: subscriber.says("3 instances"))
        Install(server.url, app_name="Kiosk").arrived({"n": 1})
        subscriber.until(lambda: subscriber.says("4 instances, 2 applications"))
        server.kill()
        subscriber.until(lambda: "; again in " in subscriber.output.read_text())
        server.start()
        act(installs[0], "erase")
        subscriber.until(lambda: subscriber.says("3 instances, 2 applications"))


def test_the_subscriber_in_shell_follows_and_goes_on_after_the_server_was_killed(
    server: ServerProcess, tmp_path: Path
) -> None:
    installs = [Install(server.url).arrived({"n": 1, "text": "ü\u2028'\n"}) for _ in range(3)]
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.until(lambda: subscriber.mirror() == listed(server))
        installs[1].snapshot({"n": 2})
        act(installs[0], "erase")
        subscriber.until(lambda: subscriber.mirror() == listed(server))
        assert server.admin_token not in command_lines(subscriber.process.pid)
        server.kill()
        server.start()
        act(installs[1], "erase")
        installs[2].snapshot({"n": 3})
        Install(server.url).arrived({"n": 4})
        there = listed(server)
        subscriber.until(lambda: subscriber.mirror() == there)
        assert len(there) == 2


def test_the_subscriber_in_shell_lists_anew_where_its_cursor_leads_nowhere(
    server: ServerProcess, database: str, tmp_path: Path
) -> None:
    gone, stays = (Install(server.url).arrived({"n": number}) for number in range(2))
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.until(lambda: subscriber.mirror() == listed(server))
        server.kill()
        with admin_cursor(database) as cursor:  # as a backup of an earlier time would be, before `gone` came
            cursor.execute("UPDATE feed_head SET cursor = 1, horizon = 0")
            cursor.execute("UPDATE instances SET cursor = 1 WHERE instance_id = %s", (stays.instance_id,))
            cursor.execute("DELETE FROM instances WHERE instance_id = %s", (gone.instance_id,))
        server.start()
        subscriber.until(lambda: subscriber.mirror().keys() == {stays.instance_id})


@pytest.mark.parametrize("example", ["python", "bash"])
def test_a_subscriber_whose_token_is_refused_ends(server: ServerProcess, tmp_path: Path, example: str) -> None:
    with running_example(example, server, tmp_path, "shm_wrong-token-wrong-token") as subscriber:
        assert subscriber.process.wait(LIMIT_S) != 0
        assert "401" in subscriber.output.read_text() or "does not accept the token" in subscriber.output.read_text()


@pytest.mark.parametrize("missing", ["curl", "sed", "python3", "websocket-client"])
def test_the_shell_subscriber_ends_where_a_program_is_missing(
    running: ServerProcess, tmp_path: Path, missing: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in {"bash", "cat", "curl", "mkdir", "rm", "sed", "sleep", "touch", "tr"} - {missing}:
        (programs / name).symlink_to(str(shutil.which(name)))
    if missing != "python3":
        option = "-S" if missing == "websocket-client" else ""  # without the folder of installed packages
        (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} {option} "$@"\n')
        (programs / "python3").chmod(0o755)
    script = Running(["bash", "-c", block("bash")], running, tmp_path, programs=str(programs))
    assert script.process.wait(LIMIT_S) == 1
    assert script.output.read_text().startswith(f"{missing} is missing: ")
    assert not (tmp_path / "mirror").exists()


def test_the_shell_subscriber_leaves_a_folder_of_others_alone(running: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "mine.json").write_text("{}")
    script = Running(["bash", "-c", block("bash")], running, tmp_path)
    assert script.process.wait(LIMIT_S) == 1
    assert "mirror was not made by this script" in script.output.read_text()
    assert [file.name for file in (tmp_path / "mirror").iterdir()] == ["mine.json"]


def test_the_shell_subscriber_takes_the_folder_of_its_last_run(server: ServerProcess, tmp_path: Path) -> None:
    install = Install(server.url).arrived({"n": 1})
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.until(lambda: subscriber.mirror() == listed(server))
    act(install, "erase")
    with running_example("bash", server, tmp_path) as subscriber:
        subscriber.until(lambda: not list((tmp_path / "mirror").glob("*.json")))


def command_lines(session: int) -> str:
    """What everybody on the machine can read of the processes in a session."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                lines.append((process / "cmdline").read_text())
        except (ProcessLookupError, FileNotFoundError):
            continue
    assert any("wsdump" in line for line in lines)
    return "\n".join(lines)
