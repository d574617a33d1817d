"""The themes: slightly blue greys, one accent, and two colours that are used for warnings only.

The greys have a low saturation, so that a terminal of 256 colours also draws them as greys; the accent and the warnings
are among its colours. The names are Textual's own, so that its other themes fit as well.
"""

from collections.abc import Sequence

from textual.theme import Theme

from shm_tui.theme_names import COLOUR_BLIND, DARK, LIGHT


def band_variables(colours: Sequence[str]) -> dict[str, str]:
    """The variables of the bands of a stacked chart."""
    return {f"band-{number}": colour for number, colour in enumerate(colours)}


# Of all themes without bands of their own.
BAND_DEFAULTS = band_variables(("#5fd7af", "#5f87d7", "#d7af5f", "#af87d7", "#d7875f", "#87afaf"))
# Colours that differ for every common kind of colour blindness, after Okabe and Ito.
SAFE_BANDS = band_variables(("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"))

SHM = Theme(
    name=DARK,
    primary="#5fd7af",
    secondary="#87afaf",
    accent="#5fd7af",
    success="#5fd7af",
    warning="#d7af5f",
    error="#d7875f",
    foreground="#d4d7dc",
    background="#121316",
    surface="#191b1f",
    panel="#25282d",
    boost="#25282d",
    variables={
        "foreground-muted": "#868b94",
        "primary-muted": "#2b333a",
        "accent-muted": "#1e4d3f",
        "text-success": "#5fd7af",
        "text-secondary": "#87afaf",
        "text-warning": "#d7af5f",
        "text-error": "#e0835f",
        "border": "#41464f",
        "scrollbar": "#3a3f47",
        "scrollbar-hover": "#5b616b",
        "scrollbar-active": "#868b94",
        "scrollbar-background": "#121316",
        "scrollbar-background-hover": "#121316",
        "scrollbar-background-active": "#121316",
        "scrollbar-corner-color": "#121316",
        "input-selection-background": "#5fd7af 30%",
        "block-cursor-background": "#2b333a",
        "block-cursor-foreground": "#f2f4f7",
    },
)

SHM_LIGHT = Theme(
    name=LIGHT,
    dark=False,
    primary="#00735a",
    secondary="#4a6a6a",
    accent="#00735a",
    success="#00735a",
    warning="#8a5a00",
    error="#b03a10",
    foreground="#1f2328",
    background="#fbfbfc",
    surface="#eff1f3",
    panel="#dfe3e8",
    boost="#dfe3e8",
    variables={
        "foreground-muted": "#5c636d",
        "primary-muted": "#cfe3dc",
        "accent-muted": "#bfe6d8",
        "text-success": "#00735a",
        "text-secondary": "#4a6a6a",
        "text-warning": "#8a5a00",
        "text-error": "#b03a10",
        "border": "#b6bdc6",
        "scrollbar": "#b6bdc6",
        "scrollbar-hover": "#8b939d",
        "scrollbar-active": "#5c636d",
        "scrollbar-background": "#fbfbfc",
        "scrollbar-background-hover": "#fbfbfc",
        "scrollbar-background-active": "#fbfbfc",
        "scrollbar-corner-color": "#fbfbfc",
        "input-selection-background": "#00735a 30%",
        "block-cursor-background": "#cfe3dc",
        "block-cursor-foreground": "#1f2328",
        **SAFE_BANDS,
    },
)

# The dark theme with blue for what is well and orange for what is not: no pair differs in red and green alone.
SHM_COLOUR_BLIND = Theme(
    name=COLOUR_BLIND,
    primary="#56b4e9",
    secondary="#87afaf",
    accent="#56b4e9",
    success="#56b4e9",
    warning="#f0e442",
    error="#e69f00",
    foreground=SHM.foreground,
    background=SHM.background,
    surface=SHM.surface,
    panel=SHM.panel,
    boost=SHM.boost,
    variables={
        **SHM.variables,
        "accent-muted": "#1e3f57",
        "text-success": "#56b4e9",
        "text-warning": "#f0e442",
        "text-error": "#e69f00",
        "input-selection-background": "#56b4e9 30%",
        **SAFE_BANDS,
    },
)

THEMES = (SHM, SHM_LIGHT, SHM_COLOUR_BLIND)
