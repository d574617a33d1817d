"""A question in a box. Each answer has a key; any other key answers no."""

from collections.abc import Awaitable, Callable, Iterable

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from shm_tui.dialog import Dialog

YES = "y"
CANCEL_KEYS = ("escape", "ctrl+c")


class ConfirmScreen(Dialog[str | None]):
    """Asks a question. The result is the key of an answer; None for no, which Esc, n, Enter and Ctrl+C are."""

    def __init__(self, text: str, answers: Iterable[str] = (YES,)) -> None:
        super().__init__()
        self._body = Static(text, markup=False)
        self._answers = frozenset(answers)

    def compose(self) -> ComposeResult:
        """The question in a box."""
        with Vertical(id="confirm"):
            yield self._body

    def on_key(self, event: events.Key) -> None:
        """Answers by key."""
        event.stop()
        event.prevent_default()
        self.dismiss(event.key if event.key in self._answers else None)


class PreviewScreen(ConfirmScreen):
    """Asks what `preview` returns; None closes the screen. Until then Esc and Ctrl+C cancel, and no other key acts.

    Keys that the user types while the server counts are no answers: they were meant for the screen before.
    """

    def __init__(self, preview: Callable[[], Awaitable[str | None]]) -> None:
        super().__init__("Counting…   Esc cancel")
        self._preview = preview
        self._is_ready = False

    def on_mount(self) -> None:
        """Requests the preview. The request ends with the screen."""
        self.run_worker(self._show_preview, group="preview")  # type: ignore[arg-type] # mypy finds no overload

    async def _show_preview(self) -> None:
        question = await self._preview()
        if question is None:
            self.dismiss(None)
        else:
            self._body.update(question)
            self._is_ready = True

    def on_key(self, event: events.Key) -> None:
        """Answers by key, once there is a question."""
        if self._is_ready or event.key in CANCEL_KEYS:
            super().on_key(event)
        else:
            event.stop()
            event.prevent_default()
