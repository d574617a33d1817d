"""The console's colours, in terminals that have but 256 of them."""

import pytest
from rich.color import Color, ColorSystem

from shm_tui.theme import SHM

GREYS = ("foreground", "background", "surface", "panel")
SIGNALS = ("accent", "warning", "error")


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_stays_a_grey_in_256_colours(name: str) -> None:
    number = Color.parse(getattr(SHM, name)).downgrade(ColorSystem.EIGHT_BIT).number
    assert number is not None
    assert number >= 232, f"{name} becomes the colour {number}"


def test_the_greys_can_be_told_apart_in_256_colours() -> None:
    numbers = {Color.parse(getattr(SHM, name)).downgrade(ColorSystem.EIGHT_BIT).number for name in GREYS}
    assert len(numbers) == len(GREYS)


@pytest.mark.parametrize("name", SIGNALS)
def test_what_signals_is_the_same_colour_in_256(name: str) -> None:
    color = Color.parse(getattr(SHM, name))
    assert color.downgrade(ColorSystem.EIGHT_BIT).get_truecolor() == color.get_truecolor()
