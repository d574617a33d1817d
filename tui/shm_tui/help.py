"""What `?` shows: the keys, the states and the filter, from the places where they are defined."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from . import query
from .actions import ACTIONS
from .state import State

KEYS = 10  # cells of the keys' column


class Help(ModalScreen[None]):
    """Any of its keys closes it."""

    BINDINGS = [("escape,question_mark,q,enter", "dismiss", "close")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """One text, in something that scrolls."""
        with VerticalScroll(id="help"):
            yield Static(help_text())


def help_text() -> Text:
    """Keys by group, then states, then the filter's grammar."""
    text = Text()
    for group in dict.fromkeys(action.group for action in ACTIONS):
        text.append(f"{group.upper()}\n", "bold")
        for action in ACTIONS:
            if action.group == group:
                text.append(f"  {action.shown:<{KEYS}}{action.help}\n")
        text.append("\n")
    text.append("STATES\n", "bold")
    for state in State:
        text.append(f"  {state.glyph} {state.word:<{KEYS}}{state.meaning}\n")
    text.append("\nTHE FILTER\n", "bold")
    grammar = (query.__doc__ or "").partition("\n\n")[2].rstrip()
    text.append("\n".join(f"  {line.removeprefix('    ')}" for line in grammar.splitlines()))
    return text
