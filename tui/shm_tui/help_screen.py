"""What `?` shows: the keys, the states and the filter, from the places where they are defined."""

from collections.abc import Callable

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from shm_tui.actions import ACTIONS
from shm_tui.model import filter
from shm_tui.model.state import State

KEYS = 11  # cells of the keys' column


class Help(ModalScreen[None]):
    """Any of its keys closes it; the arrows, and j and k, scroll."""

    COMPONENT_CLASSES = {"help--head", "help--key", "help--text"}  # noqa: RUF012
    BINDINGS = [  # noqa: RUF012
        ("escape,question_mark,q,enter", "dismiss", "close"),
        ("j", "scroll(1)", "down"),
        ("k", "scroll(-1)", "up"),
    ]

    def compose(self) -> ComposeResult:
        """One text, in something that scrolls."""
        with VerticalScroll(id="help"):
            yield Static(id="help-text")

    def on_mount(self) -> None:
        """The text wants the colours of the theme, which are known only now."""
        self.query_one("#help-text", Static).update(
            help_text(lambda name: self.get_component_rich_style(f"help--{name}", partial=True))
        )

    def action_scroll(self, lines: int) -> None:
        """As in the table."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)


def help_text(style: Callable[[str], Style]) -> Text:
    """Keys by group, then states, then the filter's grammar."""
    head, key, plain = style("head"), style("key"), style("text")
    text = Text(no_wrap=True, overflow="ellipsis")
    for group in dict.fromkeys(action.group for action in ACTIONS):
        text.append(f"{group.upper()}\n", head)
        for action in ACTIONS:
            if action.group == group:
                text.append(f"  {action.shown:<{KEYS}}", key).append(f"{action.help}\n", plain)
        text.append("\n")
    text.append("STATES\n", head)
    for state in State:
        text.append(f"  {state.glyph} ", key).append(f"{state.word:<{KEYS}}{state.meaning}\n", plain)
    text.append("\nTHE FILTER\n", head)
    grammar = (filter.__doc__ or "").partition("\n\n")[2].rstrip()
    text.append("\n".join(f"  {line.removeprefix('    ')}" for line in grammar.splitlines()), plain)
    return text
