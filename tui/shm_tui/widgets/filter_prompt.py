"""The prompt of the filter, above the bottom line."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Static

PLACEHOLDER = "word  -word  version:1.4  env:production  invoices_sent>10k  seen<1h"


class FilterPrompt(Horizontal):
    """A line of input. The app handles the messages of its Input."""

    _recalled = 0  # the position in the history: 0 is the text after the newest one

    def compose(self) -> ComposeResult:
        """A slash and the input."""
        yield Static("/", id="slash")
        yield Input(id="prompt", placeholder=PLACEHOLDER)

    @property
    def is_open(self) -> bool:
        """Whether the prompt is displayed."""
        return bool(self.display)

    @property
    def value(self) -> str:
        """The text in the input."""
        return self.query_one(Input).value

    def open(self, text: str) -> None:
        """Displays the prompt with a text."""
        self.display = True
        self._recalled = 0
        field = self.query_one(Input)
        field.value = text
        field.cursor_position = len(text)
        self.screen.set_focus(field)  # at once: keys that were typed ahead belong to the input

    def recall(self, history: list[str], offset: int) -> None:
        """Puts an older text of the history (-1) or a newer one (1) into the input; past the newest, no text."""
        texts = [*history, ""]
        if self.value in texts and self._recalled == 0:
            self._recalled = texts.index(self.value) - len(history)
        self._recalled = max(-len(history), min(self._recalled + offset, 0))
        field = self.query_one(Input)
        field.value = texts[len(history) + self._recalled]
        field.cursor_position = len(field.value)

    def close(self) -> None:
        """Hides the prompt."""
        self.display = False
