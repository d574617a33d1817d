"""Hostile strings in every field that an install or an admin sets, checked on the bytes that leave the console."""

import re
import time
import unicodedata
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm
from tests.support.terminal import Terminal, open_shm

CONTROLS = "\x1b]52;c;aGk=\x07\x1b[31;7;5m\x1b]0;title\x1b\\\x1bP1|x\x1b\\\x9b31m\x85\r\n\t\x08\x7f"
INVISIBLE = "\u202egnp\u2066\u200b\ufeff\u2028\u00ad\ue000"
TEXTS = (
    CONTROLS,
    f"[/x][@click=app.quit]{INVISIBLE}",
    f"日本語{INVISIBLE}👍🏽e\u0301\u0301\u0301\u0301",
)
LONG = ("".join(TEXTS) + "長x" * 1_024)[:1_024]  # the longest text that the server accepts
CSI = re.compile(r"\x1b\[([0-9;?<>=:]*)([ -/]*)([@-~])")
OSC_52 = re.compile(r"\x1b\]52;c;([A-Za-z0-9+/=]+)\x07")
POINTER = re.compile(r"\x1b\]22;[a-z-]+\x07")  # the shape of the mouse's pointer
# What Textual and the console write: colours, the cursor, the modes of the terminal.
FINALS = {*"mHhlKJABCDGnuqtp"}
EVENT_TIMEOUT_S = 60  # a background job writes the events
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of characters
VIEWS = {
    "fleet": "Fleet",
    "versions": "Versions",
    "lifecycle": "Lifecycle",
    "breakdown/os_arch": "Breakdown",
    "events": "Events",
    "application": "edits the row",
    "tokens": "Tokens",
    "audit": "Audit trail",
}


@dataclass(frozen=True)
class HostileFleet:
    """A server with an application whose every string is hostile."""

    server: ServerProcess
    install: Install
    slug: str
    metric: str


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileFleet]:
    """Installs and an admin have written hostile strings wherever the server takes one."""
    with module_server(postgres, tmp_path_factory.mktemp("hostile")) as (server, _):
        name = "".join(TEXTS)[:90]
        install, metric = Install(server.url), ""
        for first, second, third in (TEXTS, TEXTS[::-1]):
            install = Install(server.url, name, first[:50], second[:50], third[:50], first[:50])
            metric = f"k{first}"
            install.enroll({metric: 5, "text": LONG, "category": second, "nested": {third: [*TEXTS]}})
        slug = server.get(f"instances/{install.instance_id}").json()["app_slug"]
        api = f"{server.url}/api/v1/admin"
        label = {"label": TEXTS[0], "unit": TEXTS[1][:16]}
        assert name.endswith("\ufeff")  # which is refused at the beginning of a name
        edit = {"name": name[-2::-1], "overrides": {metric: label, "text": {"label": TEXTS[2]}}}
        httpx.put(f"{api}/applications/{slug}", json=edit, headers=server.headers).raise_for_status()
        httpx.post(f"{api}/tokens", json={"name": TEXTS[1], "role": "viewer"}, headers=server.headers)
        deadline = time.monotonic() + EVENT_TIMEOUT_S
        while not server.get(f"events?app={slug}").json():  # without one, the view of events has no line
            assert time.monotonic() < deadline, server.log
            time.sleep(0.1)
        yield HostileFleet(server, install, slug, metric)


def hostile_in(text: str, allowed: str = "\n") -> list[str]:
    """The characters that a terminal would not draw as one mark each."""
    return sorted({ascii(each) for each in text if each not in allowed and unicodedata.category(each) in FORBIDDEN})


def check_output(terminal: Terminal) -> list[str]:
    """Whether a terminal received nothing but what the console itself writes. Returns the texts of its copies."""
    output = terminal.output.decode()
    assert {"".join(match.group(2, 3)) for match in CSI.finditer(output)} <= FINALS | {"$p", " q", "$y"}
    assert "\x1b[31;7;5m" not in output
    copies = [b64decode(copy).decode() for copy in OSC_52.findall(output)]
    assert "hi" not in copies
    rest = POINTER.sub("", OSC_52.sub("", CSI.sub("", output)))
    assert not hostile_in(rest, "\n\r"), rest[:2000]
    for copy in copies:
        assert not hostile_in(copy, "\n\t")
    return copies


def open_hostile(fleet: HostileFleet, folder: Path, place: str, **environment: str) -> Terminal:
    """The console at a place of the hostile application."""
    return open_shm(
        (200, 50),
        *("console", "--server", fleet.server.url, "--app", fleet.slug, "--view", place),
        SHM_TOKEN=fleet.server.admin_token,
        XDG_CONFIG_HOME=str(folder),
        **environment,
    )


@pytest.mark.long  # the short suite has the list and the details: test_terminal.py
def test_no_hostile_string_reaches_a_terminal(
    fleet: HostileFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the list, the details, every view, dialogs, copies, the pager and an export."""
    monkeypatch.chdir(tmp_path)
    terminal = open_hostile(fleet, tmp_path, "instances", PAGER=f"tee {tmp_path}/paged")
    short_id = fleet.install.instance_id[:8]
    try:
        terminal.wait_for_texts(short_id, "● live", "? help")
        terminal.type_keys("/k0>1 text:click")
        terminal.wait_for_texts("no instance has sent “k0”")
        terminal.type_keys("\x1b")
        terminal.wait_for_texts("? help")
        terminal.type_keys("\x1b")
        terminal.wait_for_texts(short_id)
        terminal.type_keys("\r")
        terminal.wait_for_texts("IDENTITY")
        terminal.type_keys("y")
        terminal.wait_for_texts("Copied the metrics")
        terminal.type_keys("X")
        terminal.wait_for_texts("Erase this instance?")
        terminal.type_keys("n")
        terminal.wait_until(lambda: "Erase this" not in terminal.screen)
        terminal.type_keys("\x1b")
        terminal.wait_until(lambda: "IDENTITY" not in terminal.screen)
        terminal.type_keys("Y")
        terminal.wait_for_texts("Esc cancel")
        terminal.type_keys("r")
        terminal.wait_for_texts("Copied the row")
        terminal.type_keys("v")
        terminal.wait_until(lambda: (tmp_path / "paged").exists() and "? help" in terminal.screen)
        terminal.type_keys("\x13")
        terminal.wait_for_texts("Export 2 instances")
        terminal.type_keys("c")
        terminal.wait_for_texts("Wrote 2 rows to")
        terminal.type_keys("\x1b")
        terminal.wait_until(lambda: "Wrote 2 rows to" not in terminal.screen)
        for place, title in VIEWS.items():
            terminal.type_keys(f":{place}\r")
            terminal.wait_for_texts(title)
            terminal.type_keys("y")
            terminal.wait_for_texts("Copied the line")
        terminal.type_keys(f":{fleet.slug}/instance/{short_id}\r")
        terminal.wait_for_texts(fleet.install.instance_id, "VERSIONS")
        terminal.type_keys(f":{fleet.slug}/metric/{quote(fleet.metric, safe='')}\r")
        terminal.wait_for_texts("m second metric")
        terminal.type_keys("\x10click")
        terminal.wait_until(lambda: "Search for" not in terminal.screen)
        terminal.type_keys("\x1b\x1b")
        terminal.wait_for_texts("q close")
        terminal.type_keys("qq")
        terminal.wait_for_texts("? help")
        terminal.process.terminate()
        assert terminal.wait_for_exit() == 0
        copies = check_output(terminal)
    finally:
        terminal.close()
    assert len(copies) > 2, "a line of a view too"
    assert not hostile_in((tmp_path / "paged").read_text())
    (exported,) = tmp_path.glob("*.csv")
    assert not hostile_in(exported.read_bytes().decode(), "\r\n")


@pytest.mark.parametrize(
    "options", long_after(1, [(), ("--json",), ("--format", "csv"), ("--format", "jsonl"), ("--format", "markdown")])
)
def test_no_hostile_string_reaches_a_pipe(fleet: HostileFleet, options: tuple[str, ...]) -> None:
    """Without a view, and with each view."""
    metric = f"metric/{quote(fleet.metric, safe='')}"
    for view in ("", *VIEWS, metric, f"instance/{fleet.install.instance_id}"):
        completed = run_shm(
            *("console", "--server", fleet.server.url, "--app", fleet.slug, "--once", "--view", view, *options),
            SHM_TOKEN=fleet.server.admin_token,
        )
        assert completed.returncode == 0, (view, completed.stderr)
        assert completed.stdout
        assert not hostile_in(completed.stdout, "\n\r"), view
        assert not hostile_in(completed.stderr), view
