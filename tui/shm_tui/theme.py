"""The themes: slightly blue greys, one accent, and two colours that are used for warnings only.

The greys have a low saturation, so that a terminal of 256 colours also draws them as greys; the accent and the warnings
are among its colours. The names are Textual's own, so that its other themes fit as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from textual.theme import Theme

from shm_tui.theme_names import COLOUR_BLIND, DARK, LIGHT


def band_variables(colours: Sequence[str]) -> dict[str, str]:
    """The variables of the bands of a stacked chart."""
    return {f"band-{number}": colour for number, colour in enumerate(colours)}


# Of all themes without bands of their own.
BAND_DEFAULTS = band_variables(("#5fd7af", "#5f87d7", "#d7af5f", "#af87d7", "#d7875f", "#87afaf"))
# Colours that differ for every common kind of colour blindness, after Okabe and Ito.
SAFE_BANDS = band_variables(("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"))


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of a theme. `good` is the accent; `good_muted` and `cursor` are behind texts."""

    good: str
    good_muted: str
    secondary: str
    warning: str
    error: str
    error_text: str
    cursor: str
    strong: str
    foreground: str
    muted: str
    background: str
    surface: str
    panel: str
    border: str
    scrollbar: str
    scrollbar_hover: str


DARK_PALETTE = Palette(
    good="#5fd7af",
    good_muted="#1e4d3f",
    secondary="#87afaf",
    warning="#d7af5f",
    error="#d7875f",
    error_text="#e0835f",
    cursor="#2b333a",
    strong="#f2f4f7",
    foreground="#d4d7dc",
    muted="#868b94",
    background="#121316",
    surface="#191b1f",
    panel="#25282d",
    border="#41464f",
    scrollbar="#3a3f47",
    scrollbar_hover="#5b616b",
)
LIGHT_PALETTE = Palette(
    good="#00735a",
    good_muted="#bfe6d8",
    secondary="#4a6a6a",
    warning="#8a5a00",
    error="#b03a10",
    error_text="#b03a10",
    cursor="#cfe3dc",
    strong="#1f2328",
    foreground="#1f2328",
    muted="#5c636d",
    background="#fbfbfc",
    surface="#eff1f3",
    panel="#dfe3e8",
    border="#b6bdc6",
    scrollbar="#b6bdc6",
    scrollbar_hover="#8b939d",
)
# The dark one with blue for what is well and orange for what is not: no pair differs in red and green alone.
SAFE_PALETTE = replace(
    DARK_PALETTE, good="#56b4e9", good_muted="#1e3f57", warning="#f0e442", error="#e69f00", error_text="#e69f00"
)


def make_theme(name: str, palette: Palette, bands: Mapping[str, str], *, dark: bool = True) -> Theme:
    """A theme. Each colour serves several of Textual's names."""
    return Theme(
        name=name,
        dark=dark,
        primary=palette.good,
        secondary=palette.secondary,
        accent=palette.good,
        success=palette.good,
        warning=palette.warning,
        error=palette.error,
        foreground=palette.foreground,
        background=palette.background,
        surface=palette.surface,
        panel=palette.panel,
        boost=palette.panel,
        variables={
            "foreground-muted": palette.muted,
            "primary-muted": palette.cursor,
            "accent-muted": palette.good_muted,
            "text-success": palette.good,
            "text-secondary": palette.secondary,
            "text-warning": palette.warning,
            "text-error": palette.error_text,
            "border": palette.border,
            "scrollbar": palette.scrollbar,
            "scrollbar-hover": palette.scrollbar_hover,
            "scrollbar-active": palette.muted,
            "scrollbar-background": palette.background,
            "scrollbar-background-hover": palette.background,
            "scrollbar-background-active": palette.background,
            "scrollbar-corner-color": palette.background,
            "input-selection-background": f"{palette.good} 30%",
            "block-cursor-background": palette.cursor,
            "block-cursor-foreground": palette.strong,
            **bands,
        },
    )


SHM = make_theme(DARK, DARK_PALETTE, {})
SHM_LIGHT = make_theme(LIGHT, LIGHT_PALETTE, SAFE_BANDS, dark=False)
SHM_COLOUR_BLIND = make_theme(COLOUR_BLIND, SAFE_PALETTE, SAFE_BANDS)

THEMES = (SHM, SHM_LIGHT, SHM_COLOUR_BLIND)
