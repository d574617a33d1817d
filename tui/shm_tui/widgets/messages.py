"""The messages that widgets post to the app."""

from textual.message import Message

from shm_tui.model.columns import Column
from shm_tui.model.place import Place


class RowOpened(Message):
    """The user clicked the row under the cursor."""


class CursorMoved(Message):
    """The cursor is on another instance."""


class SortRequested(Message):
    """The user clicked a column's header."""

    def __init__(self, column: Column) -> None:
        super().__init__()
        self.column = column


class ApplicationChosen(Message):
    """The user clicked an application; `slug` is None for all applications."""

    def __init__(self, slug: str | None) -> None:
        super().__init__()
        self.slug = slug


class LayoutChanged(Message):
    """The screen or the table has another size."""


class PlaceRequested(Message):
    """The user clicked something that leads to another place."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class ChartRequested(Message):
    """The user clicked the tile of the metric `key`."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
