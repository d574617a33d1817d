"""The theme: near-black, slightly blue greys, one accent, and two colours that are used for warnings only.

The greys have a low saturation, so that a terminal of 256 colours also draws them as greys; the accent and the warnings
are among its colours. The names are Textual's own, so that its other themes fit as well.
"""

from textual.theme import Theme

SHM = Theme(
    name="shm",
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
