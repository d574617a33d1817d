"""The choice of what to copy. Each entry has a key."""

from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from shm_tui.dialog import Dialog
from shm_tui.text.cells import cell_width, cut

PREVIEW_CHARS = 40  # of the text in the list
MAX_NAME_CHARS = 16


@dataclass(frozen=True, slots=True)
class CopyChoice:
    """A text that can be copied, its name and its key."""

    key: str
    name: str
    text: str


class CopyScreen(Dialog[CopyChoice | None]):
    """Shows the choices. The result is the chosen one; any other key closes it without one."""

    def __init__(self, choices: list[CopyChoice]) -> None:
        super().__init__()
        self._choices = choices

    def compose(self) -> ComposeResult:
        """The choices in a box, each with the beginning of its text."""
        with Vertical(id="confirm"):
            yield Static(
                "\n".join(["Copy", "", *map(_line, self._choices), "", "Esc cancel"]), classes="lines", markup=False
            )

    def on_key(self, event: events.Key) -> None:
        """Chooses by key."""
        event.stop()
        event.prevent_default()
        self.dismiss(next((choice for choice in self._choices if choice.key == event.key), None))


def _line(choice: CopyChoice) -> str:
    name, text = cut(choice.name, MAX_NAME_CHARS), cut(" ".join(choice.text.split()), PREVIEW_CHARS)
    return f"{choice.key}  {name}{' ' * (MAX_NAME_CHARS - cell_width(name))}  {text}"
