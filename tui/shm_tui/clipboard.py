"""Copies a text to the terminal's clipboard with OSC 52."""

from collections.abc import Mapping

from textual.driver import Driver

from shm_tui.text.osc52 import copy_sequence


def copy(driver: Driver | None, name: str, text: str, environ: Mapping[str, str]) -> str:
    """Sends a text to the terminal. Returns the notice for the user: the terminal does not say whether it took it.

    `environ` says whether the terminal is tmux or GNU screen.
    """
    sequence = copy_sequence(text, environ)
    if sequence is None or driver is None:
        return f"Too long for a terminal's clipboard: the {name}, {len(text):,} characters"
    driver.write(sequence)
    driver.flush()
    return f"Copied the {name}, {len(text):,} characters, if the terminal supports OSC 52"
