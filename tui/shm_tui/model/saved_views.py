"""Saved views: places under a name, for each application. In a place, a name stands where a view's would.

`big` is the saved view of the present application, `ledger/big` that of another one; parts that follow the name replace
those of the saved place.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from shm_tui.model.place import ALL, DEFAULT_APP, PERIODS, VIEW_NAMES, Place, PlaceError, parse_place, render_place

MAX_VIEWS = 100  # of an application: more than a prompt can propose
MAX_PLACE_CHARS = 2000  # of a saved place
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")  # a part of a place: no space and no slash


@dataclass(frozen=True)
class SavedViews:
    """The saved places: by application (`*`: all of them), then by name."""

    places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def names(self, app: str | None) -> list[str]:
        """The names that can be typed at a place of this application."""
        return sorted({*self.places.get(app or ALL, {}), *self.places.get(ALL, {})})

    def paths(self) -> list[tuple[str, str]]:
        """Application and name of all saved views."""
        return [(app, name) for app, views in self.places.items() for name in sorted(views)]

    def parse(
        self,
        text: str,
        current: Place,
        applications: Collection[str] = (),
        contexts: Collection[str] = (),
        *,
        today: date | None = None,
    ) -> Place:
        """The place that a text names, which may begin with a context or a saved view. Raises PlaceError.

        An application of this server precedes a context of the same name. `today` is as in `parse_place`.
        """
        word, _, rest = text.strip().partition(" ")
        name, _, path = word.partition("/")
        if name in contexts and name not in applications and name not in VIEW_NAMES:
            place = self._parse(f"{path} {rest}".strip(), Place(DEFAULT_APP, range=current.range), (), today)
            return replace(place, context=name)
        return self._parse(text, current, applications, today)

    def _parse(self, text: str, current: Place, applications: Collection[str], today: date | None) -> Place:
        word, _, rest = text.strip().partition(" ")
        app, slash, name = word.rpartition("/")
        app = app if slash else (current.app or ALL)  # a filter has a slash and no application before it
        saved = self.places.get(app, {}).get(name)
        if saved is None and not slash:
            app, saved = ALL, self.places.get(ALL, {}).get(name)
        if saved is None:
            return parse_place(text, current, applications, today=today)
        place = check_view(None if app == ALL else app, saved)
        return parse_place(rest, place, applications, today=today) if rest else place


def saved_form(place: Place) -> str:
    """The place without its application, under which it is saved."""
    return render_place(replace(place, app=None, context="")).removeprefix(f"{ALL}/")


def check_view(app: str | None, text: str) -> Place:
    """The place of a saved view. Raises PlaceError."""
    if len(text) > MAX_PLACE_CHARS:
        raise PlaceError(f"a place has at most {MAX_PLACE_CHARS:,} characters")
    place = parse_place(text, Place(app))
    if place.app != app:
        raise PlaceError("a saved view is of the application that its table names")
    return place


def check_view_name(name: str) -> None:
    """Raises PlaceError for a name that cannot be typed, or that has a meaning already."""
    if not NAME.fullmatch(name):
        raise PlaceError("a name has small letters, digits, hyphens and underscores, at most 40")
    if name in VIEW_NAMES or name in PERIODS:
        raise PlaceError(f"“{name}” is a view or a range already")
