"""The baseline of a start: an application of Textual that shows one word. `python -m bench.console.bare_app`"""

from textual.app import App, ComposeResult
from textual.widgets import Static

WORD = "started"


class BareApp(App[None]):
    """Shows the word."""

    def compose(self) -> ComposeResult:
        """The word."""
        yield Static(WORD)


if __name__ == "__main__":
    BareApp().run()
