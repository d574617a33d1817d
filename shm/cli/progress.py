"""A progress bar on standard error, if that is a terminal."""

import sys

WIDTH = 30  # characters


class Progress:
    """The bar. `total` may be set once it is known."""

    def __init__(self, total: int = 0) -> None:
        self.total, self._done = total, 0
        self._is_shown = sys.stderr.isatty()

    def advance(self, count: int, items: str) -> None:
        """Draws the bar after `count` more of the total."""
        self._done += count
        if self._is_shown:
            share = min(1.0, self._done / max(1, self.total))
            filled = round(share * WIDTH)
            bar = "#" * filled + "." * (WIDTH - filled)
            sys.stderr.write(f"\r[{bar}] {share:4.0%} {items:<10}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leaves the bar."""
        if self._is_shown:
            sys.stderr.write("\n")
