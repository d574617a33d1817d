"""The part of the screen that has the focus, on which the keys that move act."""

from typing import Protocol


class Pane(Protocol):
    """A part of the screen with a cursor or a scroll position."""

    def move_cursor(self, lines: int) -> None:
        """Moves by lines; a negative number moves up."""

    def move_page(self, direction: int) -> None:
        """Moves by a page."""

    def move_to_first(self) -> None:
        """Moves to the first line."""

    def move_to_last(self) -> None:
        """Moves to the last line."""

    def scroll_columns(self, count: int) -> None:
        """Moves to the right; a negative number moves to the left."""
