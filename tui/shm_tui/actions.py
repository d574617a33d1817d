"""The registry of actions. Key bindings, footer, command palette and help screen are all built from it.

An action's `name` is the app's method `action_<name>`, with its arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shm_tui.model.place import ViewName

# The part of the screen that receives the keys; of a view, the keys that do something in it.
Context = Literal[
    "table", "marked", "details", "filter", "place", "fleet", "chart", "metric", "breakdown", "instance", "page"
]


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
DECIDING, VIEWS = "Deciding", "Views and places"

ACTIONS = (
    Action("move(-1)", "up,k", "↑ k", "previous row; in the prompt, previous filter", NAVIGATION),
    Action("move(1)", "down,j", "↓ j", "next row; in the prompt, next filter", NAVIGATION, "scroll"),
    Action("page(-1)", "pageup,ctrl+b", "PgUp", "previous page", NAVIGATION),
    Action("page(1)", "pagedown,ctrl+f", "PgDn", "next page", NAVIGATION),
    Action("first", "home,g", "g", "first row", NAVIGATION),
    Action("last", "end,G", "G", "last row", NAVIGATION),
    Action(
        "columns(-1)",
        "left,h",
        "← h",
        "columns on the left; in a chart, an earlier time",
        NAVIGATION,
    ),
    Action("columns(1)", "right,l", "→ l", "columns on the right; in a chart, a later time", NAVIGATION),
    Action("command", "colon", ":", "go to a place, or run a command", VIEWS, "place"),
    Action("previous_place", "backspace", "⌫", "go back to the previous place", VIEWS, "back"),
    Action("view('fleet')", "F", "F", "all applications", VIEWS, "fleet"),
    Action("view('instances')", "I", "I", "the instances of the application", VIEWS),
    Action("view('versions')", "V", "V", "versions: their shares over time, and who is behind", VIEWS, "versions"),
    Action("view('lifecycle')", "L", "L", "lifecycle: new, active, lost and returned instances", VIEWS),
    Action("view('breakdown')", "B", "B", "breakdown by version, system or any category", VIEWS),
    Action("view('events')", "E", "E", "events of the application; of all, with the server's", VIEWS),
    Action("view('application')", "A", "A", "the application's settings: name, URLs, metrics", VIEWS),
    Action("chart", "c", "c", "chart of the metric sorted by, or under the cursor", VIEWS, "chart"),
    Action("dimension", "d", "d", "in a metric: its values by another dimension", VIEWS, "by"),
    Action("second_metric", "m", "m", "in a metric: another one over it, after the last none", VIEWS),
    Action("range('24h')", "1", "1", "range: 24 hours", VIEWS),
    Action("range('7d')", "2", "2", "range: 7 days", VIEWS),
    Action("range('30d')", "3", "3", "range: 30 days", VIEWS),
    Action("range('3m')", "4", "4", "range: 3 months", VIEWS, "range"),
    Action("range('1y')", "5", "5", "range: 1 year", VIEWS),
    Action("range('all')", "6", "6", "range: everything", VIEWS),
    Action("application(-1)", "left_square_bracket", "[", "previous application", VIEWING),
    Action("application(1)", "right_square_bracket", "]", "next application", VIEWING, "app"),
    Action("open", "enter", "⏎", "open the row; in the details, the instance in full", VIEWING, "open"),
    Action("neighbour(1)", "J", "J", "next instance, while details are open", VIEWING, "next"),
    Action("neighbour(-1)", "K", "K", "previous instance, while details are open", VIEWING),
    Action("copy", "y", "y", "copy the ID; in details the metrics, in a view the line", VIEWING),
    Action("copy_choice", "Y", "Y", "copy the ID, a cell, the row, the JSON or the place", VIEWING),
    Action("export", "ctrl+s", "^s", "export the rows as CSV, JSON lines or Markdown", VIEWING),
    Action("json", "v", "v", "show the JSON in $PAGER", VIEWING),
    Action("pause", "p", "p", "hold rows, ages, tiles and counts, or resume", VIEWING, "pause"),
    Action("reload", "r", "r", "reload the list or the view; while disconnected, retry now", VIEWING),
    Action("filter", "slash", "/", "filter as you type", SORTING, "filter"),
    Action("sort(-1)", "shift+left", "⇧←", "sort by the column left of it; in a view, previous metric", SORTING),
    Action("sort(1)", "shift+right", "⇧→", "sort by the column right of it; in a view, next metric", SORTING, "sort"),
    Action("reverse", "s", "s", "reverse the sort order", SORTING),
    Action("sort_choice", "o", "o", "choose the column to sort by, by its name", SORTING),
    Action("column_choice", "w", "w", "columns: hide, pin, move and widen them", SORTING, "columns"),
    Action("mark", "space", "Space", "mark the instance, or remove its mark", DECIDING, "mark", for_admins=True),
    Action("unmark", "u", "u", "remove all marks", DECIDING, "unmark all", for_admins=True),
    Action(
        "decide('approve')", "a", "a", "approve the instance, or the marked ones", DECIDING, "approve", for_admins=True
    ),
    Action(
        "decide('revoke')", "R", "R", "revoke the instance, or the marked ones", DECIDING, "revoke", for_admins=True
    ),
    Action("decide('erase')", "X", "X", "erase the instance, or the marked ones", DECIDING, "erase", for_admins=True),
    Action(
        "back",
        "escape",
        "Esc",
        "go up: prompt, details, view, filter, all applications",
        GENERAL,
        "back",
    ),
    Action(
        "next_pane",
        "tab",
        "Tab",
        "next pane; after `:`, complete the word",
        GENERAL,
        "pane",
    ),
    Action("change_theme", "T", "T", "choose a theme", GENERAL),
    Action("help", "question_mark", "?", "show keys, states and the filter's syntax", GENERAL, "help"),
    Action("command_palette", "ctrl+p", "^p", "open the list of all actions", GENERAL),
    Action("close", "q", "q", "close the details or the view, else quit", GENERAL, "quit"),
    Action("interrupt", "ctrl+c", "^c", "cancel the input; twice, quit", GENERAL),
)

# The actions in the footer of each context, the most used first.
FOOTER_ACTIONS: dict[Context, tuple[str, ...]] = {
    "table": (
        "filter",
        "open",
        "sort(1)",
        "chart",
        "view('versions')",
        "view('fleet')",
        "command",
        "column_choice",
        "help",
        "close",
    ),
    "marked": ("decide('approve')", "decide('revoke')", "decide('erase')", "mark", "unmark", "filter", "help", "close"),
    "details": ("back", "move(1)", "neighbour(1)", "next_pane", "pause", "help", "close"),
    "filter": ("open", "back"),
    "fleet": ("filter", "open", "range('3m')", "command", "previous_place", "help", "close"),
    "chart": ("open", "columns(1)", "range('3m')", "command", "previous_place", "help", "close"),
    "metric": (
        *("open", "columns(1)", "range('3m')", "dimension", "second_metric", "command", "previous_place"),
        *("help", "close"),
    ),
    "breakdown": ("open", "columns(1)", "sort(1)", "command", "previous_place", "help", "close"),
    "instance": ("open", "range('3m')", "json", "command", "previous_place", "help", "close"),
    "page": ("open", "command", "previous_place", "help", "close"),
    "place": ("open", "next_pane", "back"),
}
PINNED = ("help", "close")  # in the footer at any width
_PAIRED_KEYS = {
    "sort(1)": "⇧← ⇧→",
    "application(1)": "[ ]",
    "move(1)": "↑ ↓",
    "neighbour(1)": "J K",
    "columns(1)": "← →",
    "range('3m')": "1-6",
}  # one entry for both directions
_CONTEXT_HINTS: dict[tuple[Context, str], str] = {
    ("filter", "open"): "keep",
    ("filter", "back"): "close",
    ("place", "open"): "go",
    ("place", "next_pane"): "complete",
    ("place", "back"): "close",
    ("chart", "columns(1)"): "time",
    ("metric", "columns(1)"): "time",
    ("metric", "dimension"): "dimension",
    ("metric", "second_metric"): "second metric",
    ("breakdown", "columns(1)"): "dimension",
    ("breakdown", "sort(1)"): "metric",
    ("instance", "json"): "JSON",
    **{(context, "close"): "close" for context in ("details", "chart", "metric", "breakdown", "instance", "page")},
}
_VIEW_CONTEXTS: dict[ViewName, Context] = {
    "fleet": "fleet",
    "versions": "chart",
    "lifecycle": "chart",
    "metric": "metric",
    "breakdown": "breakdown",
    "instance": "instance",
}
QUIT_COMMANDS = ("quit", "q")  # beside the names of the actions


@dataclass(frozen=True, slots=True)
class SettingsCommand:
    """A command after `:` with the name of its argument, if it has one, and its help."""

    name: str
    argument: str
    help: str

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"{self.name} {self.argument}".rstrip()


SETTINGS_COMMANDS = (
    SettingsCommand("context", "NAME", "connect to another server of the configuration file"),
    SettingsCommand("save", "NAME", "save this place as a view of the application"),
    SettingsCommand("theme", "NAME", "use a theme"),
    SettingsCommand("save_theme", "", "begin with the present theme from now on"),
    SettingsCommand("token", "", "type another token for this server"),
    SettingsCommand("forget_token", "", "remove the token that is kept for this server"),
)


def view_context(view: ViewName) -> Context:
    """The context of a view: its footer has only keys that do something in it."""
    return _VIEW_CONTEXTS.get(view, "page")


def visible_actions(*, is_admin: bool, actions: Sequence[Action] = ACTIONS) -> list[Action]:
    """The actions that a token's role permits."""
    return [action for action in actions if is_admin or not action.for_admins]


def commands(*, is_admin: bool) -> dict[str, str]:
    """The texts that can be typed after `:`, and the action that it runs: an action's name, or its argument."""
    by_name: dict[str, str] = {}
    for action in visible_actions(is_admin=is_admin):
        method, _, argument = action.name.rstrip(")").partition("(")
        if not argument or method == "decide":
            by_name[argument.strip("'") or method] = action.name
    return by_name | dict.fromkeys(QUIT_COMMANDS, "quit")


def footer_hints(context: Context = "table", actions: Sequence[Action] = ACTIONS) -> list[tuple[str, str, bool]]:
    """The keys of a context's footer, each with its hint and whether it is in the footer at any width."""
    by_name = {action.name: action for action in actions}
    return [
        (
            _PAIRED_KEYS.get(name, by_name[name].key_label) if by_name[name] in ACTIONS else by_name[name].key_label,
            _CONTEXT_HINTS.get((context, name), by_name[name].hint),
            name in PINNED,
        )
        for name in FOOTER_ACTIONS[context]
    ]
