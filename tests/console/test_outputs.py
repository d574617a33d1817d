"""The ways out of the console: export, copy, pager and viewer, on a real server."""

import asyncio
import csv
import json
import os
import re
import stat
from base64 import b64decode
from pathlib import Path

import pytest

from shm_client.api import Api
from shm_tui.app import ConsoleApp
from shm_tui.command import make_client
from shm_tui.errors import ExportError
from shm_tui.export_file import new_file
from shm_tui.model.place import Place, parse_place
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.terminal import open_terminal


def exported(folder: Path) -> Path:
    """The only file in a folder, hidden ones included."""
    (file,) = folder.iterdir()
    return file


async def test_the_rows_of_the_list_are_exported_with_its_filter_order_and_columns(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shm_tui.model.export.PAGE_SIZE", 2)  # three pages
    installs = [Install(server.url).enroll({"sent": 10**20 + number, "t": "=1+1\x1b"}) for number in range(5)]
    Install(server.url, environment="dev").enroll({"sent": 1})
    async with open_console(server, "ledger", place="sort=-sent /env:production") as console:
        await console.wait_until(lambda: len(console.rows()) == 5)
        await console.pilot.press("ctrl+s")
        await console.wait_for_text("Export 5 instances of ledger matching /env:production")
        await console.pilot.press("c")
        await console.wait_for_text("Wrote 5 rows to", "y copy the path")
    file = exported(tmp_path)
    assert re.fullmatch(r"shm-ledger-instances-\d{8}-\d{6}\.csv", file.name)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["instance_id"] for row in rows] == [install.instance_id for install in reversed(installs)]
    assert [row["metrics.sent"] for row in rows] == [str(10**20 + number) for number in (4, 3, 2, 1, 0)]
    assert {(row["state"], row["metrics.t"]) for row in rows} == {("active", "'=1+1�")}


async def test_a_cancelled_or_failed_export_leaves_no_file(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shm_tui.model.export.PAGE_SIZE", 1)
    for sent in range(3):
        Install(server.url).enroll({"sent": sent})
    next_page, is_asked = Api.next_page, asyncio.Event()

    async def wait_for_the_second_page(api: Api, query: str) -> object:
        if "after=" not in query:
            return await next_page(api, query)
        is_asked.set()
        await asyncio.Event().wait()
        return None

    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 3)
        monkeypatch.setattr(Api, "next_page", wait_for_the_second_page)
        await console.pilot.press("ctrl+s", "j")
        await console.wait_until(is_asked.is_set)
        await console.wait_for_text("1 of 3 rows", "Esc cancel")
        assert exported(tmp_path).name.startswith(".shm-ledger")
        await console.pilot.press("escape")
        await console.wait_for_text("The export was cancelled after 1 row: no file was written")
        await console.wait_until(lambda: not list(tmp_path.iterdir()))
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        await console.pilot.press("ctrl+s")
        await console.wait_for_text("Export 3 instances")
        (tmp_path / "gone").rmdir()
        await console.pilot.press("m")
        await console.wait_for_text("The export failed", "Nothing was written", "Esc close")
        await console.pilot.press("escape", "ctrl+s")
        await console.wait_for_text("There is no current directory to export to")


async def test_a_view_is_exported_with_its_rows(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Install(server.url, app_version="1.0").enroll({"sent": 1, "beta": True})
    Install(server.url, app_version="2.0").enroll({"sent": 2, "beta": False})
    Install(server.url, app_version="2.1-rc1").enroll({"beta": False})
    heads = {
        "versions": "version,instances,releases_behind",
        "lifecycle": "day,new,active",
        "breakdown/version/sent": "version,instances,sent",
        "metric/sent": "at,metrics.sent,instances.sent",
        "metric/beta": "at,metrics.beta,instances.beta",
        "fleet": "slug,name,total",
    }
    async with open_console(server, "ledger") as console:
        await console.wait_until(lambda: len(console.rows()) == 3)
        for place, head in heads.items():
            console.app.go(parse_place(place, Place("ledger")))
            await console.wait_until(lambda: console.app.navigation.view.session.loaded_at)  # type: ignore[union-attr]
            source = console.app.outputs._source()
            assert source is not None
            assert ",".join(source.names).startswith(head), place
            rows = [row async for page in source.pages() for row in page]
            assert [len(row) for row in rows] == [len(source.names)] * (source.total or 0), place
            if place == "versions":
                assert [row[:3] for row in rows] == [["2.1-rc1", 1, 0], ["2.0", 1, 0], ["1.0", 1, 1]]
        for view, question in {
            "tokens": "1 row of the view tokens, ",
            "versions": "3 rows of the view versions of",
        }.items():
            console.app.go(parse_place(view, Place("ledger")))
            await console.wait_until(lambda: console.app.navigation.view.session.loaded_at)  # type: ignore[union-attr]
            await console.pilot.press("ctrl+s")
            await console.wait_for_text(f"Export {question}")
            await console.pilot.press("escape")
        console.app.go(parse_place("metric/sent", Place("ledger")))
        await console.wait_until(lambda: console.app.navigation.view.session.loaded_at)  # type: ignore[union-attr]
        await console.pilot.press("ctrl+s", "j")
        await console.wait_for_text("Wrote")
    last = json.loads(exported(tmp_path).read_text().splitlines()[-1])
    assert last["metrics"] == {"sent": 3}


async def test_a_restricted_session_writes_and_executes_nothing(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGER", "false")
    Install(server.url).enroll({"sent": 12345678, "text": "needle"})
    async with make_client(server.url, server.admin_token) as client:
        app = ConsoleApp(client, "ledger", is_restricted=True)
        async with app.run_test(size=(120, 36)) as pilot:
            console = DrivenConsole(app, pilot)
            await console.wait_until(lambda: len(console.rows()) == 1)
            await pilot.press("ctrl+s")
            await console.wait_for_text("this session writes no file")
            await pilot.press("j")
            await console.wait_for_text("Copied the 1 row", "if the terminal supports")
            await pilot.press("escape", "v")
            await console.wait_for_text('"sent": 12345678', "/ search")
            await pilot.press("slash", *"absent", "enter")
            await console.wait_for_text("no line has “absent”")
            await pilot.press("q")
            await console.wait_until_gone("/ search")
    assert not list(tmp_path.iterdir())


def test_an_export_beyond_the_clipboards_limit_is_refused() -> None:
    from shm_tui.errors import ExportError
    from shm_tui.export_file import LimitedText

    text = LimitedText()
    text.write("x" * 70_000)
    with pytest.raises(ExportError, match="do not fit"):
        text.write("é" * 3_000)


def test_v_shows_the_json_in_the_pager_and_y_copies_what_is_chosen(server: ServerProcess, tmp_path: Path) -> None:
    install = Install(server.url).enroll({"sent": 45721, "hostile": "\x1b]52;c;aGk=\x07"})
    seen = tmp_path / "seen.json"
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {seen}\necho SHOWN; read line <&1\n")
    pager.chmod(0o700)
    with open_terminal(server, (120, 36), TMUX="", STY="", PAGER=str(pager)) as terminal:
        terminal.wait_for_texts("45.7k", "● live")
        terminal.type_keys("v")
        terminal.wait_for_texts("SHOWN")
        terminal.type_keys("\n")
        terminal.wait_until(
            lambda: "SHOWN" not in terminal.screen and "● live" in terminal.screen
        )  # all is drawn again
        document = json.loads(seen.read_text())
        assert (document["instance_id"], document["metrics"]["sent"]) == (install.instance_id, 45721)
        for key in "crjp":
            terminal.type_keys("Y")
            terminal.wait_for_texts("Esc cancel", "c  Sent", install.instance_id[:8])
            terminal.type_keys(key)
            terminal.wait_until(lambda: "Esc cancel" not in terminal.screen)
        pattern = rb"\x1b\]52;c;([^\x07]*)\x07"
        terminal.wait_until(lambda: len(re.findall(pattern, terminal.output)) == 4)
        cell, row, text, place = (b64decode(match).decode() for match in re.findall(pattern, terminal.output))
        assert cell == "45721"
        assert install.instance_id in row.split("\t")
        assert json.loads(text) == document
        assert place.startswith("ledger/instances 30d")


def test_an_export_replaces_no_file_and_no_link(tmp_path: Path) -> None:
    file, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    file.write_text("mine")
    link.symlink_to(tmp_path / "later")
    for path in (file, link):
        with pytest.raises(ExportError, match="cannot be written: File exists"), new_file(path) as write:
            write("rows")
    assert file.read_text() == "mine"
    assert link.is_symlink()
    with new_file(tmp_path / "new.csv") as write:
        write("é\n")
    assert (tmp_path / "new.csv").read_text(encoding="utf-8") == "é\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "new.csv", "rows.csv"]
