"""The filter while the user edits it: an invalid text leaves the previous filter in effect."""

from collections.abc import Mapping

from shm_tui.model.columns import MetricDescriptions
from shm_tui.model.filter import MATCH_ALL, Filter, FilterError, parse_filter
from shm_tui.model.row_store import RowStore

MAX_HISTORY = 50  # filters: more than anybody goes back


class FilterEditor:
    """Applies texts to a store. `text` is the text of the filter in effect."""

    def __init__(self) -> None:
        self.text = ""
        self.ranks: dict[str, str] = {}  # the server's ranks of the versions that filters compare with
        self.begun_with = ""  # the filter in effect when the prompt was opened
        self.history: list[str] = []  # filters that were in effect, the newest last
        self._labels: dict[str, str] = {}  # the keys by the labels with which the filter in effect was parsed

    def begin(self) -> None:
        """Remembers the filter in effect, which applies while a text is invalid."""
        self.begun_with = self.text
        self.remember()

    def remember(self) -> None:
        """Adds the filter in effect to the history."""
        if self.text:
            self.history = [*(text for text in self.history if text != self.text), self.text][-MAX_HISTORY:]

    def apply(self, text: str, store: RowStore, descriptions: MetricDescriptions) -> FilterError | None:
        """Sets the store's filter. Returns the error of an invalid text."""
        error = None
        labels = self._labels = _keys_by_label(store, descriptions) if text.strip() else {}
        try:
            store.filter = self._parse(text, store.key_counts, labels)
        except FilterError as caught:
            error, text = caught, self.begun_with
            store.filter = self._parse(text, store.key_counts, labels)
        self.text = store.filter_text = text.strip()
        return error

    def is_outdated(self, store: RowStore, descriptions: MetricDescriptions) -> bool:
        """Whether the filter in effect was parsed with other labels than those of the columns now."""
        return bool(self.text) and self._labels != _keys_by_label(store, descriptions)

    def _parse(self, text: str, keys: Mapping[str, int], labels: Mapping[str, str]) -> Filter:
        return parse_filter(text, keys, self.ranks, labels) if text.strip() else MATCH_ALL


def _keys_by_label(store: RowStore, descriptions: MetricDescriptions) -> dict[str, str]:
    return {descriptions[key].label: key for key in store.key_counts}
