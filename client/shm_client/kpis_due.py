"""Which applications' KPIs have to be asked for after a connection was lost: those that the feed had yet to tell."""

MOST_APPLICATIONS = 5000  # that are looked at again after a gap


class KpisDue:
    """Cursors of changes whose KPIs were not told yet, by application."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._told: set[str] = set()

    def moved(self, slug: str, cursor: int) -> None:
        """An instance of this application changed: its KPIs are about to come."""
        if slug in self._due or len(self._due) < MOST_APPLICATIONS:
            self._due[slug] = cursor

    def told(self, slug: str, cursor: int) -> None:
        """KPIs as new as this came."""
        self._remember(slug)
        if self._due.get(slug, 0) <= cursor:
            self._due.pop(slug, None)

    def found(self, slug: str) -> None:
        """They were asked for, and are known now."""
        self._remember(slug)
        self._due.pop(slug, None)

    def forget(self, slug: str) -> None:
        """There is no such application."""
        self._due.pop(slug, None)

    def list_anew(self, cursor: int) -> None:
        """Whatever was told may have changed since without a word."""
        for slug in self._told:
            self.moved(slug, cursor)

    def slugs(self) -> list[str]:
        """The applications to be asked for."""
        return list(self._due)

    def _remember(self, slug: str) -> None:
        if len(self._told) < MOST_APPLICATIONS:
            self._told.add(slug)
