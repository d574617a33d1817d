"""The registry of actions. Key bindings, footer, command palette and help screen are all built from it.

An action's `name` is the app's method `action_<name>`, with its arguments.
"""

from dataclasses import dataclass
from typing import Literal

Context = Literal["table", "details", "filter"]  # the part of the screen that receives the keys


@dataclass(frozen=True, slots=True)
class Action:
    """An action of the user. `keys` are Textual's names; `key_label` is their form on the screen."""

    name: str
    keys: str
    key_label: str
    help: str
    group: str
    hint: str = ""  # the word in the footer; actions without one are not in it


NAVIGATION, VIEWING, SORTING, GENERAL = "Navigation", "Viewing", "Sorting and filtering", "General"

ACTIONS = (
    Action("move(-1)", "up,k", "↑ k", "previous row", NAVIGATION),
    Action("move(1)", "down,j", "↓ j", "next row", NAVIGATION, "scroll"),
    Action("page(-1)", "pageup,ctrl+b", "PgUp", "previous page", NAVIGATION),
    Action("page(1)", "pagedown,ctrl+f", "PgDn", "next page", NAVIGATION),
    Action("first", "home,g", "g", "first row", NAVIGATION),
    Action("last", "end,G", "G", "last row", NAVIGATION),
    Action("columns(-1)", "left,h", "← h", "scroll to the columns on the left", NAVIGATION),
    Action("columns(1)", "right,l", "→ l", "scroll to the columns on the right", NAVIGATION),
    Action("application(-1)", "left_square_bracket", "[", "previous application", VIEWING),
    Action("application(1)", "right_square_bracket", "]", "next application", VIEWING, "app"),
    Action("open", "enter", "⏎", "open the instance's details", VIEWING, "open"),
    Action("pause", "p", "p", "pause or resume the rows", VIEWING, "pause"),
    Action("reload", "r", "r", "reload the list; while disconnected, retry now", VIEWING),
    Action("filter", "slash", "/", "filter as you type", SORTING, "filter"),
    Action("sort(-1)", "shift+left", "⇧←", "sort by the column on the left", SORTING),
    Action("sort(1)", "shift+right", "⇧→", "sort by the column on the right", SORTING, "sort"),
    Action("reverse", "s", "s", "reverse the sort order", SORTING),
    Action("back", "escape", "Esc", "go back: close, then clear the filter", GENERAL, "back"),
    Action("next_pane", "tab", "Tab", "switch between table, details and applications", GENERAL, "pane"),
    Action("help", "question_mark", "?", "show keys, states and the filter's syntax", GENERAL, "help"),
    Action("command_palette", "ctrl+p", "^p", "open the list of all actions", GENERAL),
    Action("quit", "q,ctrl+c", "q", "quit", GENERAL, "quit"),
)

# The actions in the footer of each context, the most used first.
FOOTER_ACTIONS: dict[Context, tuple[str, ...]] = {
    "table": ("filter", "open", "sort(1)", "application(1)", "pause", "help", "quit"),
    "details": ("back", "move(1)", "next_pane", "pause", "help", "quit"),
    "filter": ("open", "back"),
}
_PAIRED_KEYS = {"sort(1)": "⇧← ⇧→", "application(1)": "[ ]", "move(1)": "↑ ↓"}  # one entry for both directions
_CONTEXT_HINTS: dict[tuple[Context, str], str] = {("filter", "open"): "keep", ("filter", "back"): "clear"}


def footer_hints(context: Context = "table") -> list[tuple[str, str]]:
    """The keys of a context's footer, each with its hint."""
    by_name = {action.name: action for action in ACTIONS}
    return [
        (_PAIRED_KEYS.get(name, by_name[name].key_label), _CONTEXT_HINTS.get((context, name), by_name[name].hint))
        for name in FOOTER_ACTIONS[context]
    ]
