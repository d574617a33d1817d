"""The `[keys]` of the configuration file: other keys for actions of the registry.

A key is a character, such as `G` or `?`, or a name, such as `f5`, `ctrl+x` or `space`. The keys that an action gets
replace all of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from shm_tui.actions import ACTIONS, Action
from shm_tui.text.sanitizing import sanitize

MAX_KEYS = 8  # of an action: more than anybody remembers
_ARROWS = {"left": "←", "right": "→", "up": "↑", "down": "↓"}
_LABELS = {
    **_ARROWS,
    "home": "Home",
    "end": "End",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "insert": "Ins",
    "delete": "Del",
    "tab": "Tab",
    "enter": "⏎",
    "escape": "Esc",
    "backspace": "⌫",
    "space": "Space",
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
}
_WITH_CTRL = ("left", "right", "up", "down", "home", "end", "pageup", "pagedown", "delete")
# Without H, I, J and M: a terminal sends the same bytes for these as for Backspace, Tab and Enter.
_CTRL_LETTERS = "abcdefgklnopqrstuvwxyz"
KEY_NAMES = frozenset(
    {
        *_LABELS,
        *(f"ctrl+{letter}" for letter in _CTRL_LETTERS),
        *(f"ctrl+{name}" for name in _WITH_CTRL),
        *(f"shift+{name}" for name in (*_ARROWS, "home", "end", "pageup", "pagedown", "delete", "tab")),
    }
)
# Textual's names of characters, as the registry has them.
_CHARACTERS = {
    "colon": ":",
    "slash": "/",
    "question_mark": "?",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
}
# Their keys also work while a text is typed, so they can have no character.
_IN_PROMPTS = ("next_pane", "interrupt")


class KeysError(ValueError):
    """A mistake in the keys of `action`, a name that the file has."""

    def __init__(self, action: str, reason: str) -> None:
        super().__init__(reason)
        self.action = action


def config_name(action: Action) -> str:
    """The action's name in the file: `pause`, `view_fleet`, `move_next`."""
    method, _, argument = action.name.rstrip(")").partition("(")
    suffix = {"": "", "1": "_next", "-1": "_previous"}.get(argument, f"_{argument.strip(chr(39))}")
    return method + suffix


def check_keys(keys: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The keys of the file as Textual names them. Raises KeysError for an unknown action or key, and for a conflict."""
    names = [config_name(action) for action in ACTIONS]
    for name, listed in keys.items():
        if name not in names:
            similar = get_close_matches(name, names, 1)
            hint = f"; is it {similar[0]}?" if similar else f": {' '.join(names)}"
            raise KeysError(name, f"there is no action “{sanitize(name, 40)}”{hint}")
        if not 0 < len(listed) <= MAX_KEYS:
            raise KeysError(name, f"expected one to {MAX_KEYS} keys")
        for key in listed:
            _check_key(name, key)
    rebound = with_keys({name: tuple(listed) for name, listed in keys.items()})
    owners: dict[str, str] = {}
    for action in sorted(rebound, key=lambda action: config_name(action) in keys):  # the others own their keys first
        name = config_name(action)
        for key in split_keys(action.keys):
            if owners.setdefault(key, name) != name:
                raise KeysError(name, f"the key {key} is that of {owners[key]}; give that another one, too")
    return {name: tuple(listed) for name, listed in keys.items()}


def with_keys(keys: Mapping[str, Sequence[str]]) -> tuple[Action, ...]:
    """The registry with the keys of the file."""
    return tuple(
        replace(action, keys=",".join(keys[name]), key_label=" ".join(map(key_label, keys[name])))
        if (name := config_name(action)) in keys
        else action
        for action in ACTIONS
    )


def split_keys(keys: str) -> list[str]:
    """The keys of an action, each as a character or a name of the file."""
    return [_CHARACTERS.get(key, key) for key in keys.split(",")]


def key_label(key: str) -> str:
    """The form of a key on the screen: `^x` for `ctrl+x`."""
    modifier, _, name = key.rpartition("+") if len(key) > 1 else ("", "", key)
    return {"ctrl": "^", "shift": "⇧", "": ""}[modifier] + _LABELS.get(name, name)


def _check_key(action: str, key: str) -> None:
    is_character = len(key) == 1 and key.isprintable() and not key.isspace() and key.isascii()
    if key == ",":
        raise KeysError(action, "the comma cannot be bound")
    if not is_character and key not in KEY_NAMES:
        raise KeysError(
            action,
            f"there is no key “{sanitize(key, 40)}”: expected a character, such as G, or a name, such as ctrl+x, f5, "
            "space, pageup or shift+left",
        )
    if action in _IN_PROMPTS and (is_character or key == "space"):
        raise KeysError(action, f"{key} is needed for typing: this action works in prompts, too")
