"""The one registry of actions: keys, footer, command palette and `?` are all made from it.

An action's `name` is the method `action_<name>` of the app that does it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person can do. `shown` is how its keys are written; `hint` stands in the footer, if anything does."""

    name: str
    keys: str
    shown: str
    help: str
    group: str
    hint: str = ""


MOVE, LOOK, SORT, OTHER = "Moving", "Looking", "Sorting and filtering", "Otherwise"

ACTIONS = (
    Action("move(-1)", "up,k", "↑ k", "the row above", MOVE),
    Action("move(1)", "down,j", "↓ j", "the row below", MOVE, "scroll"),
    Action("page(-1)", "pageup,ctrl+b", "PgUp", "a screenful up", MOVE),
    Action("page(1)", "pagedown,ctrl+f", "PgDn", "a screenful down", MOVE),
    Action("first", "home,g", "g", "the first row", MOVE),
    Action("last", "end,G", "G", "the last row", MOVE),
    Action("columns(-1)", "left,h", "← h", "columns to the left", MOVE),
    Action("columns(1)", "right,l", "→ l", "columns to the right", MOVE),
    Action("application(-1)", "left_square_bracket", "[", "the application before", LOOK),
    Action("application(1)", "right_square_bracket", "]", "the application after", LOOK, "app"),
    Action("open", "enter", "⏎", "open the instance", LOOK, "open"),
    Action("freeze", "p", "p", "hold the rows still, or let them go on", LOOK, "freeze"),
    Action("look_again", "r", "r", "list anew; while the server is away, try now", LOOK),
    Action("filter", "slash", "/", "filter, as you type", SORT, "filter"),
    Action("sort(-1)", "shift+left", "⇧←", "sort by the column to the left", SORT),
    Action("sort(1)", "shift+right", "⇧→", "sort by the column to the right", SORT, "sort"),
    Action("reverse", "s", "s", "sort the other way round", SORT),
    Action("back", "escape", "Esc", "go back: close, then clear the filter", OTHER, "back"),
    Action("next_pane", "tab", "Tab", "between table, details and applications", OTHER, "pane"),
    Action("help", "question_mark", "?", "the keys, the states, the filter", OTHER, "help"),
    Action("command_palette", "ctrl+p", "^p", "every action by name", OTHER),
    Action("quit", "q,ctrl+c", "q", "quit", OTHER, "quit"),
)

# The order of the footer is that of use, not that of the help; each place has keys of its own.
FOOTERS = {
    "table": ("filter", "open", "sort(1)", "application(1)", "freeze", "help", "quit"),
    "details": ("back", "move(1)", "next_pane", "freeze", "help", "quit"),
    "prompt": ("open", "back"),
}
_BOTH = {"sort(1)": "⇧← ⇧→", "application(1)": "[ ]", "move(1)": "↑ ↓"}
_HERE = {("prompt", "open"): "keep", ("prompt", "back"): "clear"}


def footer(place: str = "table") -> list[tuple[str, str]]:
    """Keys and hints of a place's footer, in its order; one key stands for both directions."""
    by_name = {action.name: action for action in ACTIONS}
    return [
        (_BOTH.get(name, by_name[name].shown), _HERE.get((place, name), by_name[name].hint)) for name in FOOTERS[place]
    ]
