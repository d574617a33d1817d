"""A place: what the console shows, as one line that can be typed, given at the start, and returned to.

    APPLICATION/VIEW/ARGUMENT… RANGE sort=COLUMN /FILTER      every part is optional

`ledger/metric/invoices_sent 3m` is a chart, `*/instances /status:pending` a filtered list of all applications. A part
that is left out stays as it is. `/` inside a name is written `%2F`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args
from urllib.parse import quote, unquote

from shm_client.figures import Period
from shm_tui.text.sanitizing import sanitize

ViewName = Literal[
    "fleet", "instances", "versions", "lifecycle", "breakdown", "metric", "instance", "events", "tokens", "audit"
]

VIEW_NAMES: tuple[ViewName, ...] = get_args(ViewName)
PERIODS: tuple[Period, ...] = get_args(Period)
ALL = "*"  # the name of all applications, which no slug can be
MAX_ARGUMENTS: dict[ViewName, int] = {"metric": 1, "instance": 1, "breakdown": 2}  # of the other views none
FOR_ADMINS: frozenset[ViewName] = frozenset({"tokens", "audit"})
OF_SERVER: frozenset[ViewName] = FOR_ADMINS | {"fleet"}  # whatever the application
NEEDS_APPLICATION: frozenset[ViewName] = frozenset({"versions", "lifecycle", "breakdown", "metric"})
MAX_HISTORY = 100  # places that can be gone back to
SORT = "sort="
_QUOTED = " \t/%"  # characters of a name that have a meaning in a place


class PlaceError(ValueError):
    """The text is not a place. `str(error)` says what is expected."""


@dataclass(frozen=True, slots=True)
class Place:
    """An application's slug (None: all), a view with its arguments, the filter, the sort and the range.

    Arguments: `metric` has a key, `instance` an ID, `breakdown` a dimension and perhaps a metric. `sort` is a column's
    ID, with a minus for descending order; empty: the default.
    """

    app: str | None = None
    view: ViewName = "instances"
    arguments: tuple[str, ...] = ()
    filter: str = ""
    sort: str = ""
    range: Period = "30d"

    @property
    def subject(self) -> tuple[str | None, ViewName, tuple[str, ...]]:
        """The parts whose change is a step that can be gone back from."""
        return self.app, self.view, self.arguments

    def loads_as(self, other: "Place") -> bool:
        """Whether a view has the same data at another place."""
        return (self.subject, self.range) == (other.subject, other.range)

    def argument(self, index: int) -> str | None:
        """An argument of the view, None if it has none."""
        return self.arguments[index] if index < len(self.arguments) else None

    def to_view(self, view: ViewName, *arguments: str, filter_text: str = "") -> "Place":
        """The same application and range in another view."""
        return Place(self.app, view, arguments, filter_text, "", self.range)

    def with_app(self, app: str | None) -> "Place":
        """The same view of another application. Filter, sort and arguments belong to this one."""
        is_of_app = self.view != "instance" and (self.view not in OF_SERVER or app is None)
        view = self.view if is_of_app else "instances"
        arguments = self.arguments[:1] if view == "breakdown" else ()
        return replace(self, app=app, view=view, arguments=arguments, filter="", sort="")


def render_place(place: Place) -> str:
    """The place as a line that `parse_place` reads."""
    path = "/".join([place.app or ALL, place.view, *map(_encode, place.arguments)])
    parts = [path, place.range]
    if place.sort:
        parts.append(SORT + _encode(place.sort))
    if place.filter:
        parts.append("/" + place.filter)
    return " ".join(parts)


def parse_place(text: str, current: Place, applications: Iterable[str] = ()) -> Place:
    """The place that a text names. Parts that it leaves out are those of `current`. Raises PlaceError.

    A single word is a range, a view or an application, in this order.
    """
    words, filter_text = _split(text)
    place = current
    for word in words:
        if word in PERIODS:
            place = replace(place, range=word)
        elif word.startswith(SORT):
            place = replace(place, sort=sanitize(unquote(word.removeprefix(SORT))))
        else:
            place = _follow(word, place, set(applications))
    return place if filter_text is None else replace(place, filter=sanitize(filter_text))


def _split(text: str) -> tuple[list[str], str | None]:
    """The words of a place, and the filter after a slash that begins a word."""
    match = re.search(r"(?:^|\s)/(.*)$", text)
    if match is None:
        return text.split(), None
    return text[: match.start()].split(), match[1].strip()


def _follow(path: str, place: Place, applications: set[str]) -> Place:
    first, *rest = path.split("/")
    if first in VIEW_NAMES and not (rest and rest[0] in VIEW_NAMES):
        return _open(place, place.app, first, rest)
    if applications and first != ALL and unquote(first) not in applications:
        raise PlaceError(f"“{sanitize(first)}” is no view and no application: {' '.join(VIEW_NAMES)}")
    app = None if first == ALL else sanitize(unquote(first))
    if not rest:
        return place.with_app(app) if app != place.app else place
    if rest[0] not in VIEW_NAMES:
        raise PlaceError(f"“{sanitize(rest[0])}” is not a view: {' '.join(VIEW_NAMES)}")
    return _open(place, app, rest[0], rest[1:])


def _open(place: Place, app: str | None, view: ViewName, arguments: list[str]) -> Place:
    limit = MAX_ARGUMENTS.get(view, 0)
    if len(arguments) > limit:
        raise PlaceError(f"{view} has at most {limit} arguments" if limit else f"{view} has no argument")
    if view == "instance" and not arguments:
        raise PlaceError("instance needs an ID: instance/a3b4c5d6")
    return Place(
        app, view, tuple(sanitize(unquote(argument)) for argument in arguments if argument), "", "", place.range
    )


def _encode(name: str) -> str:
    return "".join(quote(character, safe="") if character in _QUOTED else character for character in name)


def missing_application(place: Place) -> str:
    """Why a place cannot be shown: its view is of one application, and it names none. "" if it can."""
    if place.app is None and place.view in NEEDS_APPLICATION:
        return f"{place.view} is of one application: choose one with [ or ], or type ledger/{place.view}, for example"
    return ""


class PlaceHistory:
    """The places before the current one, the newest last."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def leave(self, place: Place) -> None:
        """Remembers a place that is left."""
        if not self._places or self._places[-1] != place:
            self._places = [*self._places, place][-MAX_HISTORY:]

    def back(self) -> Place | None:
        """The previous place, which is no longer remembered; None at the first one."""
        return self._places.pop() if self._places else None
