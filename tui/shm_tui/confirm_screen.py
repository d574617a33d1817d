"""A question in a box. Each answer has a key; any key that is none of them answers no."""

from collections.abc import Iterable

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from shm_tui.dialog import Dialog

YES = "y"


class ConfirmScreen(Dialog[str | None]):
    """Asks a question. The result is the key of an answer; None for no, which Esc, n, Enter and Ctrl+C are."""

    def __init__(self, text: str, answers: Iterable[str] = (YES,)) -> None:
        super().__init__()
        self._text = text
        self._answers = frozenset(answers)

    def compose(self) -> ComposeResult:
        """The question in a box."""
        with Vertical(id="confirm"):
            yield Static(self._text, markup=False)

    def on_key(self, event: events.Key) -> None:
        """Answers by key."""
        event.stop()
        event.prevent_default()
        self.dismiss(event.key if event.key in self._answers else None)
