"""The names of the console's themes, for the command's options: the themes themselves need Textual."""

DARK, LIGHT, COLOUR_BLIND, TERMINAL = "shm", "shm-light", "shm-colour-blind", "ansi-dark"
THEME_NAMES = (DARK, LIGHT, COLOUR_BLIND, TERMINAL, "ansi-light")


def is_theme(name: str) -> bool:
    """Whether the console or Textual has a theme of this name."""
    if name in THEME_NAMES:
        return True
    from textual.theme import BUILTIN_THEMES  # loaded for themes of Textual only

    return name in BUILTIN_THEMES
