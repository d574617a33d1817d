"""A prompt above the bottom line: for the filter after `/`, or for a place or a command after `:`."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input, Static

FILTER_PLACEHOLDER = "word  -word  version:1.4  env:production  METRIC>10k  seen<1h"
PLACE_PLACEHOLDER = "versions   SLUG/metric/KEY 3m   breakdown/os_arch   fleet   quit"


class Prompt(Horizontal):
    """A line of input after a sign. The app handles the messages of its Input."""

    def __init__(self, sign: str, placeholder: str, suggester: Suggester | None = None) -> None:
        super().__init__()
        self._sign = Static(sign, classes="sign", markup=False)
        self.field = Input(placeholder=placeholder, suggester=suggester, classes="field")
        self._recalled = 0  # the position in the history: 0 is the text after the newest one

    def compose(self) -> ComposeResult:
        """The sign and the input."""
        yield self._sign
        yield self.field

    @property
    def is_open(self) -> bool:
        """Whether the prompt is displayed."""
        return bool(self.display)

    @property
    def value(self) -> str:
        """The text in the input."""
        return self.field.value

    def open(self, text: str) -> None:
        """Displays the prompt with a text."""
        self.display = True
        self._recalled = 0
        self.field.value = text
        self.field.cursor_position = len(text)
        self.screen.set_focus(self.field)  # at once: keys that were typed ahead belong to the input

    def recall(self, history: list[str], offset: int) -> None:
        """Puts an older text of the history (-1) or a newer one (1) into the input; past the newest, no text."""
        texts = [*history, ""]
        if self.value in texts and self._recalled == 0:
            self._recalled = texts.index(self.value) - len(history)
        self._recalled = max(-len(history), min(self._recalled + offset, 0))
        self.field.value = texts[len(history) + self._recalled]
        self.field.cursor_position = len(self.field.value)

    def close(self) -> None:
        """Hides the prompt."""
        self.display = False
