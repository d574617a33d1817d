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
    for_admins: bool = False  # hidden from a viewer's token


NAVIGATION, VIEWING, SORTING, GENERAL = "Navigation", "Viewing", "Sorting and filtering", "General"
DECIDING = "Deciding"

ACTIONS = (
    Action("move(-1)", "up,k", "↑ k", "previous row; in the prompt, previous filter", NAVIGATION),
    Action("move(1)", "down,j", "↓ j", "next row; in the prompt, next filter", NAVIGATION, "scroll"),
    Action("page(-1)", "pageup,ctrl+b", "PgUp", "previous page", NAVIGATION),
    Action("page(1)", "pagedown,ctrl+f", "PgDn", "next page", NAVIGATION),
    Action("first", "home,g", "g", "first row", NAVIGATION),
    Action("last", "end,G", "G", "last row", NAVIGATION),
    Action("columns(-1)", "left,h", "← h", "scroll to the columns on the left", NAVIGATION),
    Action("columns(1)", "right,l", "→ l", "scroll to the columns on the right", NAVIGATION),
    Action("application(-1)", "left_square_bracket", "[", "previous application", VIEWING),
    Action("application(1)", "right_square_bracket", "]", "next application", VIEWING, "app"),
    Action("open", "enter", "⏎", "open the instance's details", VIEWING, "open"),
    Action("neighbour(1)", "J", "J", "next instance, while details are open", VIEWING, "next"),
    Action("neighbour(-1)", "K", "K", "previous instance, while details are open", VIEWING),
    Action("copy", "y", "y", "copy the instance's ID; in the details, its metrics", VIEWING),
    Action("pause", "p", "p", "pause or resume the rows", VIEWING, "pause"),
    Action("reload", "r", "r", "reload the list; while disconnected, retry now", VIEWING),
    Action("filter", "slash", "/", "filter as you type", SORTING, "filter"),
    Action("sort(-1)", "shift+left", "⇧←", "sort by the column on the left", SORTING),
    Action("sort(1)", "shift+right", "⇧→", "sort by the column on the right", SORTING, "sort"),
    Action("reverse", "s", "s", "reverse the sort order", SORTING),
    Action("decide('approve')", "a", "a", "approve the instance", DECIDING, for_admins=True),
    Action("decide('revoke')", "R", "R", "revoke the instance", DECIDING, for_admins=True),
    Action("decide('erase')", "X", "X", "erase the instance", DECIDING, for_admins=True),
    Action("back", "escape", "Esc", "go up: close the prompt, the details, then show all rows", GENERAL, "back"),
    Action("next_pane", "tab", "Tab", "switch between table, details and applications", GENERAL, "pane"),
    Action("help", "question_mark", "?", "show keys, states and the filter's syntax", GENERAL, "help"),
    Action("command_palette", "ctrl+p", "^p", "open the list of all actions", GENERAL),
    Action("close", "q", "q", "close the details, else quit", GENERAL, "quit"),
    Action("interrupt", "ctrl+c", "^c", "cancel the input; twice, quit", GENERAL),
)

# The actions in the footer of each context, the most used first.
FOOTER_ACTIONS: dict[Context, tuple[str, ...]] = {
    "table": ("filter", "open", "sort(1)", "application(1)", "pause", "help", "close"),
    "details": ("back", "move(1)", "neighbour(1)", "next_pane", "pause", "help"),
    "filter": ("open", "back"),
}
_PAIRED_KEYS = {
    "sort(1)": "⇧← ⇧→",
    "application(1)": "[ ]",
    "move(1)": "↑ ↓",
    "neighbour(1)": "J K",
}  # one entry for both directions
_CONTEXT_HINTS: dict[tuple[Context, str], str] = {("filter", "open"): "keep", ("filter", "back"): "close"}


def visible_actions(*, is_admin: bool) -> list[Action]:
    """The actions that a token's role permits."""
    return [action for action in ACTIONS if is_admin or not action.for_admins]


def footer_hints(context: Context = "table") -> list[tuple[str, str]]:
    """The keys of a context's footer, each with its hint."""
    by_name = {action.name: action for action in ACTIONS}
    return [
        (_PAIRED_KEYS.get(name, by_name[name].key_label), _CONTEXT_HINTS.get((context, name), by_name[name].hint))
        for name in FOOTER_ACTIONS[context]
    ]
