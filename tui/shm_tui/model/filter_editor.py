"""The filter while the user edits it: an invalid text leaves the previous filter in effect."""

from collections.abc import Mapping

from shm_tui.model.filter import MATCH_ALL, Filter, FilterError, parse_filter
from shm_tui.model.row_store import RowStore


class FilterEditor:
    """Applies texts to a store. `text` is the text of the filter in effect."""

    def __init__(self) -> None:
        self.text = ""
        self.ranks: dict[str, str] = {}  # the server's ranks of the versions that filters compare with
        self._previous_text = ""

    def begin(self) -> None:
        """Remembers the filter in effect, which applies while a text is invalid."""
        self._previous_text = self.text

    def apply(self, text: str, store: RowStore) -> FilterError | None:
        """Sets the store's filter. Returns the error of an invalid text."""
        error = None
        try:
            store.filter = self._parse(text, store.key_counts)
        except FilterError as caught:
            error, text = caught, self._previous_text
            store.filter = self._parse(text, store.key_counts)
        self.text = text.strip()
        return error

    def _parse(self, text: str, keys: Mapping[str, int]) -> Filter:
        return parse_filter(text, keys, self.ranks) if text.strip() else MATCH_ALL
