"""When changes are drawn: a few times a second at any rate of changes, and after the answer to a key."""

DRAW_INTERVAL_S = 0.25
START_DRAW_INTERVAL_S = 0.05  # until the first data are drawn: the user waits for them
INPUT_S = 0.05  # from a key until its answer is on the screen; to draw changes takes some of it
MAX_DELAY_S = 0.5  # between two drawings while a key is held down


class DrawPacing:
    """The times of the last drawing and the last key, on the monotonic clock."""

    def __init__(self) -> None:
        self._drawn_at = -MAX_DELAY_S
        self._input_at = -MAX_DELAY_S
        self.is_started = False  # the first data have been drawn

    def mark_drawn(self, now: float) -> None:
        """Changes are drawn now."""
        self._drawn_at = now

    def mark_input(self, now: float) -> None:
        """A key was pressed, or the mouse was used."""
        self._input_at = now

    def due_at(self) -> float:
        """The time from which changes may be drawn."""
        if not self.is_started:
            return self._drawn_at + START_DRAW_INTERVAL_S
        answered_at = min(self._input_at + INPUT_S, self._drawn_at + MAX_DELAY_S)
        return max(self._drawn_at + DRAW_INTERVAL_S, answered_at)
