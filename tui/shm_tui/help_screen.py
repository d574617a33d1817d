"""The help screen: keys, states and the filter's syntax, taken from the modules that define them."""

from collections.abc import Callable, Sequence

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from shm_tui.actions import SETTINGS_COMMANDS, Action
from shm_tui.dialog import Dialog
from shm_tui.model import filter
from shm_tui.model.state import State

KEY_WIDTH = 11  # cells of the column of keys, and of the states' names
COMMAND_WIDTH = 16  # cells of the column of commands, and of the terms of a filter


class HelpScreen(Dialog[None]):
    """Shows the help. The arrows, j and k scroll it."""

    COMPONENT_CLASSES = {"help--heading", "help--key", "help--text"}  # noqa: RUF012
    BINDINGS = [  # noqa: RUF012
        ("escape,question_mark,q,enter,ctrl+c", "dismiss", "close"),
        ("j", "scroll(1)", "down"),
        ("k", "scroll(-1)", "up"),
        ("g", "edge(False)", "start"),
        ("G", "edge(True)", "end"),
    ]

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self._actions = actions

    def compose(self) -> ComposeResult:
        """One text in a scrollable container."""
        with VerticalScroll(id="help"):
            yield Static(id="help-text")

    def on_mount(self) -> None:
        """Fills in the text. The theme's colours are not known before."""
        self.query_one("#help-text", Static).update(
            help_text(lambda name: self.get_component_rich_style(f"help--{name}", partial=True), self._actions)
        )

    def action_scroll(self, lines: int) -> None:
        """Scrolls by lines."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)

    def action_edge(self, is_end: bool) -> None:
        """Scrolls to the start or the end."""
        box = self.query_one("#help")
        box.scroll_end(animate=False) if is_end else box.scroll_home(animate=False)


def help_text(style: Callable[[str], Style], actions: Sequence[Action]) -> Text:
    """The keys of the actions, by group, then the commands, the states, then the filter's syntax."""
    heading, key, plain = style("heading"), style("key"), style("text")
    text = Text(no_wrap=True, overflow="ellipsis")
    for group in dict.fromkeys(action.group for action in actions):
        text.append(f"{group.upper()}\n", heading)
        for action in actions:
            if action.group == group:
                text.append(f"  {action.key_label:<{KEY_WIDTH}}", key).append(f"{action.help}\n", plain)
        text.append("\n")
    text.append("COMMANDS AFTER :\n", heading)
    for command in SETTINGS_COMMANDS:
        text.append(f"  {command.usage:<{COMMAND_WIDTH}}", key).append(f"{command.help}\n", plain)
    text.append("\nSTATES\n", heading)
    for state in State:
        text.append(f"  {state.glyph} ", key).append(f"{state.label:<{KEY_WIDTH}}{state.meaning}\n", plain)
    text.append("\nTHE FILTER\n", heading)
    syntax, _, note = (filter.__doc__ or "").partition("\n\n")[2].rstrip().partition("\n\n")
    for line in syntax.splitlines():
        term, _, meaning = line.removeprefix("    ").partition("  ")
        text.append(f"  {term:<{COMMAND_WIDTH}}", key).append(f"{meaning.strip()}\n", plain)
    return text.append(f"\n  {note}", plain)
