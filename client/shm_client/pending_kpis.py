"""Tracks applications whose KPIs changed but were not received, so that they are fetched after a lost connection."""

MAX_APPLICATIONS = 5000  # tracked, and fetched again after a gap


class PendingKpis:
    """By application: the cursor of the last change whose KPIs were not received yet."""

    def __init__(self) -> None:
        self._pending: dict[str, int] = {}
        self._received: set[str] = set()

    def mark_changed(self, slug: str, cursor: int) -> None:
        """An instance of this application changed at `cursor`; the server sends the KPIs later."""
        if slug in self._pending or len(self._pending) < MAX_APPLICATIONS:
            self._pending[slug] = cursor

    def mark_received(self, slug: str, cursor: int) -> None:
        """The feed sent KPIs that are as new as `cursor`."""
        self._remember(slug)
        if self._pending.get(slug, 0) <= cursor:
            self._pending.pop(slug, None)

    def mark_fetched(self, slug: str) -> None:
        """The current KPIs were fetched with a request."""
        self._remember(slug)
        self._pending.pop(slug, None)

    def forget(self, slug: str) -> None:
        """The application does not exist."""
        self._pending.pop(slug, None)

    def mark_all_changed(self, cursor: int) -> None:
        """A new list begins at `cursor`: all KPIs received so far may have changed since."""
        for slug in self._received:
            self.mark_changed(slug, cursor)

    def slugs(self) -> list[str]:
        """The applications whose KPIs are to be fetched."""
        return list(self._pending)

    def _remember(self, slug: str) -> None:
        if len(self._received) < MAX_APPLICATIONS:
            self._received.add(slug)
