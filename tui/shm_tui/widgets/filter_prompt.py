"""The prompt of the filter, above the bottom line."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Static

PLACEHOLDER = "word  -word  version:1.4  env:production  invoices_sent>10k  seen<1h"


class FilterPrompt(Horizontal):
    """A line of input. The app handles the messages of its Input."""

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
        field = self.query_one(Input)
        field.value = text
        field.focus()

    def close(self) -> None:
        """Hides the prompt."""
        self.display = False
