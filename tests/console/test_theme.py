"""The console's colours in terminals with 256 colours."""

import pytest
from rich.color import Color, ColorSystem

from shm_tui.theme import SHM

GREYS = ("foreground", "background", "surface", "panel")
SIGNAL_COLOURS = ("accent", "warning", "error")


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_stays_a_grey_in_256_colours(name: str) -> None:
    number = Color.parse(getattr(SHM, name)).downgrade(ColorSystem.EIGHT_BIT).number
    assert number is not None
    assert number >= 232, f"{name} becomes the colour {number}"


def test_the_greys_differ_in_256_colours() -> None:
    numbers = {Color.parse(getattr(SHM, name)).downgrade(ColorSystem.EIGHT_BIT).number for name in GREYS}
    assert len(numbers) == len(GREYS)


@pytest.mark.parametrize("name", SIGNAL_COLOURS)
def test_a_signal_colour_is_unchanged_in_256_colours(name: str) -> None:
    color = Color.parse(getattr(SHM, name))
    assert color.downgrade(ColorSystem.EIGHT_BIT).get_truecolor() == color.get_truecolor()
