"""A place: what the console shows, as one line that can be typed, given at the start, and returned to.

    CONTEXT/APPLICATION/VIEW/ARGUMENT… RANGE at=DAY sort=COLUMN /FILTER      every part is optional

`ledger/metric/invoices_sent 3m` is a chart, `*/instances /status:pending` a filtered list of all applications,
`versions at=2026-11-01` (or `at 2026-11-01`) the versions as of that day. A part that is left out stays as it is. `/`
inside a name is written `%2F`.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args
from urllib.parse import quote, unquote

from shm_client.figures import Period
from shm_tui.text.sanitizing import sanitize

ViewName = Literal[
    "fleet",
    "instances",
    "versions",
    "lifecycle",
    "breakdown",
    "metric",
    "instance",
    "events",
    "application",
    "tokens",
    "audit",
]

VIEW_NAMES: tuple[ViewName, ...] = get_args(ViewName)
PERIODS: tuple[Period, ...] = get_args(Period)
ALL = "*"  # the name of all applications, which no slug can be
DEFAULT_APP = ""  # in the place of a slug at the start: the application with the most installs
MAX_ARGUMENTS: dict[ViewName, int] = {"metric": 3, "instance": 1, "breakdown": 2}  # of the other views none
FOR_ADMINS: frozenset[ViewName] = frozenset({"tokens", "audit"})
OF_SERVER: frozenset[ViewName] = FOR_ADMINS | {"fleet"}  # whatever the application
NEEDS_APPLICATION: frozenset[ViewName] = frozenset({"versions", "lifecycle", "breakdown", "metric", "application"})
WITH_PAST: frozenset[ViewName] = frozenset({"instances", "versions", "metric"})  # views with figures as of a day
SHORT_PERIODS: tuple[Period, ...] = ("24h", "7d")  # their steps are hours, which the server does not keep for good
MIN_PAST_PERIOD: Period = "30d"
MAX_HISTORY = 100  # places that can be gone back to
SORT = "sort="
AT = "at="
NOW = "now"  # the day of `at` that ends it
MIN_YEAR = 2000  # of a day in the past: the server's limit
_DAY = re.compile(r"\d{4}-\d\d-\d\d|-(?P<days>\d{1,5})d", re.ASCII)
_ID_START = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{0,35}", re.ASCII)  # of an instance, whose ID is a UUID
_QUOTED = " \t/%"  # characters of a name that have a meaning in a place


class PlaceError(ValueError):
    """The text is not a place. `str(error)` says what is expected."""


@dataclass(frozen=True, slots=True)
class Place:
    """An application's slug (None: all), a view with its arguments, the filter, the sort and the range.

    Arguments: `metric` has a key, a dimension and the key of a second metric, `instance` an ID, `breakdown` a dimension
    and perhaps a metric. `sort` is a column's ID, with a minus for descending order; empty: the default. `at`: the day
    at whose beginning in UTC figures are shown; None: now. `context` is the name of another server's context; empty:
    that of the server that is connected.
    """

    app: str | None = None
    view: ViewName = "instances"
    arguments: tuple[str, ...] = ()
    filter: str = ""
    sort: str = ""
    range: Period = "30d"
    at: date | None = None
    context: str = ""

    @property
    def subject(self) -> tuple[str | None, ViewName, tuple[str, ...], date | None]:
        """The parts whose change is a step that can be gone back from."""
        return self.app, self.view, self.arguments, self.at

    @property
    def past(self) -> date | None:
        """The day that the view shows; None where it shows the present."""
        return self.at if self.view in WITH_PAST and self.app is not None else None

    def loads_as(self, other: "Place") -> bool:
        """Whether a view has the same data at another place."""
        return (self.subject, self.range) == (other.subject, other.range)

    def argument(self, index: int) -> str | None:
        """An argument of the view, None if it has none."""
        return self.arguments[index] if index < len(self.arguments) else None

    def to_view(self, view: ViewName, *arguments: str, filter_text: str = "") -> "Place":
        """The same application and range in another view."""
        return Place(self.app, view, arguments, filter_text, "", self.range, self.at)

    def with_app(self, app: str | None) -> "Place":
        """The same view of another application. Filter, sort and arguments belong to this one."""
        is_of_app = self.view != "instance" and (self.view not in OF_SERVER or app is None)
        view = self.view if is_of_app else "instances"
        arguments = self.arguments[:1] if view == "breakdown" else ()
        return replace(self, app=app, view=view, arguments=arguments, filter="", sort="")


def render_place(place: Place) -> str:
    """The place as a line that `parse_place` reads."""
    context = [place.context] if place.context else []
    path = "/".join([*context, place.app or ALL, place.view, *map(_encode, place.arguments)])
    parts = [path, place.range]
    if place.at is not None:
        parts.append(AT + place.at.isoformat())
    if place.sort:
        parts.append(SORT + _encode(place.sort))
    if place.filter:
        parts.append("/" + place.filter)
    return " ".join(parts)


def parse_place(text: str, current: Place, applications: Iterable[str] = (), *, today: date | None = None) -> Place:
    """The place that a text names. Parts that it leaves out are those of `current`. Raises PlaceError.

    A single word is a range, a view or an application, in this order. `today`: by the server's clock, in UTC.
    """
    words, filter_text = _split(text)
    place = current
    for word in _join_day(words):
        if word in PERIODS:
            place = replace(place, range=word)
        elif word.startswith(AT):
            place = replace(place, at=_parse_day(word.removeprefix(AT), today or datetime.now(UTC).date()))
        elif word.startswith(SORT):
            place = replace(place, sort=sanitize(unquote(word.removeprefix(SORT))))
        else:
            place = _follow(word, place, set(applications))
    if place.at is not None and place.range in SHORT_PERIODS:
        if place.range in words:
            raise PlaceError(missing_past(place))
        place = replace(place, range=MIN_PAST_PERIOD)
    return place if filter_text is None else replace(place, filter=sanitize(filter_text))


def _split(text: str) -> tuple[list[str], str | None]:
    """The words of a place, and the filter after a slash that begins a word."""
    match = re.search(r"(?:^|\s)/(.*)$", text)
    if match is None:
        return text.split(), None
    return text[: match.start()].split(), match[1].strip()


def _join_day(words: list[str]) -> list[str]:
    """The words, with `at 2026-11-01` as one of them."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == AT.removesuffix("=") and (word == NOW or _DAY.fullmatch(word)):
            joined[-1] = AT + word
        else:
            joined.append(word)
    return joined


def _parse_day(text: str, today: date) -> date | None:
    """A day: 2026-11-01, or -30d before today. None for now. Raises PlaceError."""
    if text == NOW:
        return None
    match = _DAY.fullmatch(text)
    day = None
    if match is not None:
        with suppress(ValueError, OverflowError):
            day = date.fromisoformat(text) if match["days"] is None else today - timedelta(days=int(match["days"]))
    if day is None:
        raise PlaceError(f"“{sanitize(text)}” is not a day: at=2026-11-01, at=-30d or at=now")
    if day > today or day.year < MIN_YEAR:
        raise PlaceError(f"at is a day from {MIN_YEAR}-01-01 until today, {today}, in UTC")
    return day


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
    decoded = tuple(sanitize(unquote(argument)) for argument in arguments if argument)
    if view == "instance" and not all(map(_ID_START.fullmatch, decoded)):
        raise PlaceError(f"“{decoded[0]}” is not the beginning of an ID: instance/a3b4c5d6")
    return Place(app, view, decoded, range=place.range, at=place.at)


def _encode(name: str) -> str:
    return "".join(quote(character, safe="") if character in _QUOTED else character for character in name)


def missing_application(place: Place) -> str:
    """Why a place cannot be shown: its view is of one application, and it names none. "" if it can."""
    if place.app is None and place.view in NEEDS_APPLICATION:
        return f"{place.view} is of one application: choose one with [ or ], or type its slug first: SLUG/{place.view}"
    return ""


def missing_past(place: Place) -> str:
    """Why a place cannot be shown: its range has no past. "" if it can."""
    if place.at is not None and place.range in SHORT_PERIODS:
        return (
            f"{place.range} has no past, because only days are kept: 3 to 6 for other ranges, :at now for the present"
        )
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
