"""Every view and state looks as in its picture: at a recorded server, with clocks that stand still.

`make pictures` draws them again and shows which ones changed. `make recording` records the fleet of a demo again.
"""

import os
from pathlib import Path

import pytest

from shm_tui.app import ConsoleApp
from shm_tui.theme_names import THEME_NAMES
from tests.support.console_pictures import (
    DIALOG_SIZE,
    DIALOGS,
    PLACES,
    SIZES,
    STATES,
    draw_until,
    open_dialog,
    open_picture,
    open_state,
    settle,
)
from tests.support.recorded_api import Recording

FOLDER = Path(__file__).parent / "pictures"
FLEET, EMPTY = FOLDER / "fleet.json.gz", FOLDER / "empty.json.gz"
SETTLED_S = 2.0  # without a change, before a new picture is kept
CASES = [
    pytest.param(
        name, size, None, id=f"{name}-{size[0]}x{size[1]}", marks=[] if size == (120, 40) else pytest.mark.long
    )
    for name in PLACES
    for size in SIZES
] + [
    pytest.param("instances", (80, 24), theme, id=f"instances-{theme}", marks=pytest.mark.long)
    for theme in THEME_NAMES[1:]
]


@pytest.mark.parametrize(("name", "size", "theme"), CASES)
async def test_the_view_looks_as_in_its_picture(name: str, size: tuple[int, int], theme: str | None) -> None:
    file = FOLDER / f"{name}-{theme or f'{size[0]}x{size[1]}'}.svg"
    recording = Recording.load(FLEET)
    async with open_picture(recording, PLACES[name], size, theme) as app:
        await _compare(app, file)
        assert not recording.missing, "the console asks for more than was recorded: make recording"


@pytest.mark.parametrize("name", STATES)
async def test_the_state_looks_as_in_its_picture(name: str) -> None:
    async with open_state(name, Recording.load(FLEET), Recording.load(EMPTY)) as app:
        await _compare(app, FOLDER / f"{name}.svg")


@pytest.mark.parametrize("name", DIALOGS)
async def test_the_dialog_looks_as_in_its_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # where an export would go
    async with open_picture(Recording.load(FLEET), PLACES["instances"], DIALOG_SIZE) as app:
        await open_dialog(app, name)
        await _compare(app, FOLDER / f"dialog-{name}.svg")


async def _compare(app: ConsoleApp, file: Path) -> None:
    if os.environ.get("DRAW_PICTURES"):
        file.write_text(await settle(app, SETTLED_S), encoding="utf-8")
    expected = file.read_text(encoding="utf-8")
    picture = await draw_until(app, expected)
    assert picture == expected, f"{file.name} differs; make pictures draws it again, and git diff shows the change"
