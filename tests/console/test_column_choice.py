"""The user's choice of columns, with `w`: in the table, the file, exports and restricted sessions."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm_tui.config.file import Config, load_config
from shm_tui.config.kept_tokens import KeptTokens
from shm_tui.config.settings import Settings
from shm_tui.errors import ConfigError
from tests.support.console import DrivenConsole, open_console
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.terminal import open_shm

METRICS = {"metric:sent", "metric:version"} | {f"metric:m{each:02}" for each in range(12)}


@pytest.fixture(scope="module")
def ledger(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with installs of Ledger that have many metrics, one of them with the name of a column."""
    with module_server(postgres, tmp_path_factory.mktemp("columns")) as (server, _):
        for number in range(3):
            Install(server.url).enroll(
                {"sent": 10 * number, "version": 7} | {f"m{each:02}": each for each in range(12)}
            )
        yield server


def settings_in(folder: Path) -> Settings:
    """Those of a console whose files are in a folder."""
    path = folder / "shm" / "console.toml"
    return Settings(load_config(path), KeptTokens(folder / "tokens.json"))


def heads(console: DrivenConsole) -> list[str]:
    """The names of the columns on the screen, from left to right."""
    return [placed.column.id for placed in console.app.table._column_layout.placed()]


def columns(console: DrivenConsole) -> list[str]:
    """The names of all columns in their order, also of those for which the screen has no room."""
    return [column.id for column in console.app.table.columns]


async def wait_for_columns(console: DrivenConsole) -> None:
    """Waits for the rows, and for the columns of all metrics."""
    await console.wait_until(lambda: len(console.rows()) == 3, "the rows")
    await console.wait_until(lambda: {*columns(console)} >= METRICS, "the columns")


async def choose(console: DrivenConsole, name: str, *keys: str) -> None:
    """Opens the list of columns, and presses keys at one of them."""
    await console.pilot.press("w")
    await console.wait_for_text("Columns of ledger", "Esc cancel")
    screen = console.app.screen
    ids = [column.id for column in screen._listed]  # type: ignore[attr-defined]
    await console.pilot.press(*["j"] * ids.index(name), *keys)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_w_hides_pins_moves_and_widens_columns(
    ledger: ServerProcess, tmp_path: Path, size: tuple[int, int]
) -> None:
    """The next console has the same columns."""
    async with open_console(ledger, "ledger", size, settings=settings_in(tmp_path)) as console:
        await wait_for_columns(console)
        await choose(console, "metric:sent", "p", "right", "right", "enter")
        await console.wait_for_text("Saved the columns")
        await choose(console, "version", "space", "enter")
        await console.wait_until(lambda: "version" not in heads(console), "the column to be hidden")
        await choose(console, "metric:m11", "K", "K", "enter")
        await choose(console, "seen", "space", "p", "J", "left", "enter")
        await console.wait_until(lambda: "seen" not in heads(console))
        expected, file = columns(console), tmp_path / "shm" / "console.toml"
        assert expected[:3] == ["state", "instance", "metric:sent"]
        assert console.app.table.width_of(console.app.table.columns[2]) == 8
        (choice,) = load_config(file).columns.values()
        assert (choice.hidden, choice.widths) == (("version", "seen"), {"sent": 8})
        assert choice.pinned == ("application", "version", "sent")
    async with open_console(ledger, "ledger", size, settings=settings_in(tmp_path)) as console:
        await wait_for_columns(console)
        await console.wait_until(lambda: columns(console) == expected, f"the columns {expected}")
        await console.pilot.press("w")
        await console.wait_for_text("Columns of ledger")
        await console.pilot.press("0", "enter")
        await console.wait_until(lambda: "version" in heads(console))
    assert "ledger" not in file.read_text()


async def test_escape_restores_the_columns(ledger: ServerProcess, tmp_path: Path) -> None:
    async with open_console(ledger, "ledger", settings=settings_in(tmp_path)) as console:
        await wait_for_columns(console)
        before = columns(console)
        await choose(console, "metric:sent", "space", "j", "p", "J", "right")
        await console.wait_until(lambda: columns(console) != before)
        await console.pilot.press("escape")
        await console.wait_until_gone("Columns of ledger")
        await console.wait_until(lambda: columns(console) == before, f"the columns {before}")
    assert not (tmp_path / "shm").exists()


async def test_an_export_has_the_columns_that_are_shown(
    ledger: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric with the name of a column is another one, and its name in the file is that of `--columns`."""
    monkeypatch.chdir(tmp_path)
    async with open_console(ledger, "ledger", settings=settings_in(tmp_path)) as console:
        await wait_for_columns(console)
        await choose(console, "metric:version", "space", "enter")
        await choose(console, "os", "space", "enter")
        await choose(console, "metric:m11", "p", "enter")
        await console.wait_until(lambda: "metric:m11" in heads(console))
        await console.pilot.press("ctrl+s", "c")
        await console.wait_for_text("Wrote 3 rows")
    (exported,) = tmp_path.glob("*.csv")
    names = next(csv.reader(exported.read_text().splitlines()))
    assert names[:4] == ["state", "instance_id", "app_version", "metrics.m11"]
    assert not {"metrics.version", "os_arch"} & set(names)
    assert load_config(tmp_path / "shm" / "console.toml").columns["ledger"].hidden == ("metrics.version", "os")


async def test_a_restricted_session_keeps_no_columns(ledger: ServerProcess) -> None:
    async with open_console(ledger, "ledger", settings=Settings(Config(Path("console.toml")))) as console:
        await wait_for_columns(console)
        await choose(console, "metric:sent", "space", "enter")
        await console.wait_for_text("until the end of this session")
        assert "metric:sent" not in heads(console)


def test_a_wrong_choice_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "shm" / "console.toml"
    file.parent.mkdir()
    for line, reason in (
        ("widths = {sent = 2}", r"columns.ledger: the width of sent is from 3 to 60 cells"),
        ("hide = ['sent']", "columns.ledger: .*hide"),
        ("order = 'sent'", "columns.ledger.order: expected"),
    ):
        file.write_text(f"[columns.ledger]\n{line}\n")
        with pytest.raises(ConfigError, match=reason):
            load_config(file)


def test_w_works_in_a_real_terminal(ledger: ServerProcess, tmp_path: Path) -> None:
    arguments = ("console", "--server", ledger.url, "--app", "ledger")
    terminal = open_shm((80, 24), *arguments, SHM_TOKEN=ledger.admin_token, XDG_CONFIG_HOME=str(tmp_path))
    try:
        terminal.wait_for_texts("VERSION", "● live")
        terminal.type_keys("w")
        terminal.wait_for_texts("Columns of ledger", "Space hide  p pin  J K move", "Esc cancel")
        terminal.type_keys(" \r")
        terminal.wait_until(lambda: "VERSION" not in terminal.screen.split("\n")[4] and "Saved the" in terminal.screen)
    finally:
        terminal.close()
    assert '"version"' in (tmp_path / "shm" / "console.toml").read_text()
