"""The filter: opens its prompt, applies each text to the session's rows, and closes the prompt."""

from functools import partial
from typing import Protocol

from shm_client import Client, ClientError
from shm_tui.model.filter import MissingRankError
from shm_tui.model.filter_editor import FilterEditor
from shm_tui.model.live_session import LiveSession
from shm_tui.model.place import Place
from shm_tui.model.server_filter import NO_SERVER_FILTER
from shm_tui.widgets.dashboard import Dashboard


class FilterHost(Protocol):
    """The app: it has a session and a place, whose filter it keeps."""

    session: LiveSession
    place: Place

    def keep_filter(self, text: str) -> None:
        """Makes a valid filter a part of the place."""


class FilterControl:
    """Applies filters to the current session. In the fleet the filter is a text that the view looks for."""

    def __init__(self, client: Client, dashboard: Dashboard, host: FilterHost) -> None:
        self._client = client
        self._host = host
        self._dashboard = dashboard
        self._prompt = dashboard.prompt
        self._footer = dashboard.footer
        self._editor = FilterEditor()
        self._wanted = ""  # the filter of the place, which may wait for the rank of a version
        self._submitted: str | None = None  # closes the prompt once the ranks of its versions have arrived

    @property
    def text(self) -> str:
        """The filter in effect."""
        return self._editor.text

    @property
    def is_open(self) -> bool:
        """Whether the prompt is open."""
        return self._prompt.is_open

    def open(self) -> None:
        """Opens the prompt with the current filter."""
        self._editor.begin()
        self._footer.show_keys("filter")
        self._prompt.open(self._editor.text)

    def recall(self, offset: int) -> None:
        """Puts an older filter of the history (-1) or a newer one (1) into the prompt."""
        self._prompt.recall(self._editor.history, offset)

    def change(self, text: str) -> None:
        """Applies a text while it is typed."""
        self._submitted = None
        if self.is_open:
            self.set(text)

    def submit(self, text: str) -> None:
        """Keeps the filter and closes the prompt, unless the filter is invalid."""
        self._submitted = text
        if self.set(text):
            self.close()

    def apply(self, text: str) -> None:
        """Applies the filter of a place that was gone to. Its rows may have another one: the fleet's is not of rows."""
        is_of_rows = self._host.place.view != "fleet"
        if text != self._editor.text or (is_of_rows and text != self._host.session.store.filter_text):
            self._editor.remember()
            self._editor.begun_with = ""
            self._wanted = text
            self.set(text)

    def follow_labels(self) -> None:
        """Applies the filter again if the columns have other labels now: it may name a metric by its label."""
        session = self._host.session
        is_of_rows = self._host.place.view != "fleet" and not self.is_open
        if is_of_rows and self._editor.is_outdated(session.store, session.descriptions):
            self.set(self.text, is_repeated=True)

    def cancel(self) -> None:
        """Closes the prompt with the filter that was in effect when it was opened."""
        self._editor.remember()
        self.set(self._editor.begun_with)
        self.close()

    def clear(self) -> None:
        """Shows all rows. The history keeps the filter."""
        if self.text:
            self._editor.remember()
            self.set("")

    def close(self) -> None:
        """Closes the prompt with the filter in effect."""
        self._editor.remember()
        self._prompt.close()
        self._footer.show_message("")
        self._dashboard.focus_main()

    def set(self, text: str, *, is_repeated: bool = False) -> bool:
        """Applies a filter. Returns False for an invalid one, which leaves the previous filter in effect.

        `is_repeated`: not by the user, so that the bottom line may have the answer to something else.
        """
        if self._host.place.view == "fleet":
            self._editor.text = text.strip()
            self._host.keep_filter(self._editor.text)
            return True
        session = self._host.session
        store = session.store
        error = self._editor.apply(text, store, session.descriptions)
        session.window.sync()
        session.server_matches.request(NO_SERVER_FILTER if session.window.is_requested else store.filter.server_filter)
        if isinstance(error, MissingRankError):
            # Not a coroutine yet: the next key may cancel the worker before it starts.
            request = partial(self._request_rank, error.version)
            self._prompt.run_worker(request, group="ranks", exclusive=True)  # type: ignore[arg-type] # mypy finds no overload
        if not is_repeated:
            self._footer.show_message(str(error) if error else store.filter.warning(store.key_counts))
        store.rebuild_order(session.clock())
        self._dashboard.table.update_order()
        self._dashboard.draw_panels(session, self._editor.text)
        if error is None or self.is_open:  # while a text is invalid, the previous filter is in effect
            self._host.keep_filter(self._editor.text)
        return error is None

    async def _request_rank(self, version: str) -> None:
        """Requests the rank of a version, then applies the text in the prompt again."""
        try:
            self._editor.ranks[version] = await self._client.version_rank(version)
        except ClientError as error:
            self._footer.show_message(f"the rank of version {version} is unknown: {error}")
            return
        if not self.is_open:
            self.set(self._wanted)
        elif self.set(text := self._prompt.value) and self._submitted == text:
            self.close()
