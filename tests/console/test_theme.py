"""The console's colours in terminals with 256 colours."""

import pytest
from rich.color import Color, ColorSystem
from textual.color import Color as TextualColor
from textual.theme import Theme

from shm_tui.theme import SHM, THEMES

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


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: str(theme.name))
def test_texts_of_every_theme_have_the_contrast_of_wcag(theme: Theme) -> None:
    """4.5 for texts, on the background and the surface."""
    names = ("foreground-muted", "text-success", "text-warning", "text-error")
    texts = [theme.foreground, theme.accent, *(theme.variables[name] for name in names)]
    for ground in (theme.background, theme.surface):
        for text in texts:
            assert contrast(text or "", ground or "") >= 4.5, (text, ground)


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, as WCAG 2 defines it."""
    brighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """The relative luminance of a colour."""
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in TextualColor.parse(color).normalized
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
