"""The names of the console's themes, for the command's options: the themes themselves need Textual."""

DARK, LIGHT, COLOUR_BLIND, TERMINAL = "shm", "shm-light", "shm-colour-blind", "ansi-dark"
THEME_NAMES = (DARK, LIGHT, COLOUR_BLIND, TERMINAL, "ansi-light")
