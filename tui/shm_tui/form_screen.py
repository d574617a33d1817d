"""A form: lines of input with labels. Enter saves, Esc cancels."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from shm_tui.dialog import Dialog

KEYS = "Tab next   ⏎ save   Esc cancel"


@dataclass(frozen=True, slots=True)
class Field:
    """An input: its name, its label, its value at first, and the hint in an empty one."""

    name: str
    label: str
    value: str = ""
    hint: str = ""


class FormScreen(Dialog[bool]):
    """Edits fields. `save` gets their values by name, and returns why they cannot be saved, or "" to close the form.

    The result is whether they have been saved.
    """

    BINDINGS = [  # noqa: RUF012
        Binding("escape,ctrl+c", "dismiss(False)", "cancel"),
        Binding("down", "app.focus_next", "next"),
        Binding("up", "app.focus_previous", "previous"),
    ]

    def __init__(self, title: str, fields: list[Field], save: Callable[[dict[str, str]], Awaitable[str]]) -> None:
        super().__init__()
        self._title, self._fields, self._save = title, fields, save
        self._inputs = {
            field.name: Input(field.value, placeholder=field.hint, classes="field", select_on_focus=False)
            for field in fields
        }
        self._status = Static(KEYS, id="form-status", markup=False)

    def compose(self) -> ComposeResult:
        """The title, the fields, and the keys or an error."""
        with Vertical(id="form"):
            yield Static(self._title, markup=False, id="form-title")
            for field in self._fields:
                with Horizontal(classes="form-line"):
                    yield Static(field.label, markup=False, classes="form-label")
                    yield self._inputs[field.name]
            yield self._status

    def on_mount(self) -> None:
        """The first field has the focus."""
        next(iter(self._inputs.values())).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The app's own prompts do not get the text."""
        event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Saves all fields."""
        event.stop()
        self.run_worker(self._submit(), group="save", exclusive=True)

    async def _submit(self) -> None:
        self._status.update("Asking the server…   Esc cancel")
        focused = self.focused
        self._set_disabled(True)  # keys typed meanwhile are neither input nor an answer to what follows
        error = await self._save({name: field.value.strip() for name, field in self._inputs.items()})
        if not error:
            self.dismiss(True)
            return
        self._set_disabled(False)
        self.set_focus(focused)
        self._status.update(f"{error}\n{KEYS}")

    def _set_disabled(self, is_disabled: bool) -> None:
        for field in self._inputs.values():
            field.disabled = is_disabled
