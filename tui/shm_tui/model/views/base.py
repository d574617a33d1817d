"""The base of all views. A view loads data for a place, and turns them into a page of lines."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from shm_client import Client, Instance, Kpis
from shm_client.figures import Number
from shm_tui.model.place import Place
from shm_tui.text.glyphs import UNICODE, Glyphs
from shm_tui.text.lines import Line

T = TypeVar("T")

DEFAULT_REFRESH_S = 30.0  # between two requests of a view that is open
MIN_WHOLE_PERCENT = 100  # a larger change is written without decimals
MAX_FLOAT = 1e300  # larger sums are drawn at the edge of a chart


@dataclass(frozen=True, slots=True)
class Frame:
    """The input of a page. `selected_time` is the one that the user reads in a chart; None: the last one."""

    width: int
    height: int
    now: datetime
    place: Place
    glyphs: Glyphs = UNICODE
    selected_time: datetime | None = None
    has_colours: bool = True
    max_chart_width: int | None = None  # where lines have no limit
    has_keys: bool = True  # the user can act on the rows

    @property
    def chart_width(self) -> int:
        """The cells of a chart with its labels."""
        return min(self.width, self.max_chart_width or self.width)


@dataclass(frozen=True, slots=True)
class PageRow:
    """A line that the cursor can be on. `key` identifies it across updates; `target` is where Enter leads."""

    key: str
    line: Line
    target: Place | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Fixed lines, then rows that scroll. `times` are those of the chart. `empty` says why there are no rows."""

    head: list[Line]
    rows: list[PageRow]
    times: Sequence[datetime] = ()
    empty: str = ""


class View(ABC):
    """A view of one place. `page` is called only after `has_data` is true."""

    refresh_s = DEFAULT_REFRESH_S
    # Of the application: the metrics that can be chosen. The next view of it knows them from the start.
    kpis = Kpis("")

    @property
    @abstractmethod
    def has_data(self) -> bool:
        """Whether anything has been loaded."""

    @abstractmethod
    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the data; `on_change` is called for parts that arrive earlier. Raises ClientError."""

    async def search(self, client: Client, place: Place) -> None:  # noqa: B027 - only the fleet has something to look for
        """Requests what the filter of the place looks for beyond the loaded data. Raises ClientError."""

    @abstractmethod
    def page(self, frame: Frame) -> Page:
        """The page of the data."""

    @abstractmethod
    def document(self) -> object:
        """The data, for a JSON document."""

    def step(self, place: Place, columns: int, metrics: int) -> Place | None:
        """The place with another dimension (`columns`) or another metric; None if the view has none."""
        return None

    def next_dimension(self, place: Place) -> Place | None:
        """The place with the values by another dimension; None if the view has none."""
        return None

    def next_second(self, place: Place) -> Place | None:
        """The place with another metric over the first one, after the last none; None if the view has none."""
        return None

    def unknown_names(self) -> list[str]:
        """The metrics in the arguments of the place that the application does not have."""
        return []

    @property
    def instance(self) -> Instance | None:
        """The instance that the view shows, on which an admin can decide; None if it shows several."""
        return None


class DataView(View, Generic[T]):
    """A view of one value: `fetch` requests it, `data_page` makes its page."""

    def __init__(self) -> None:
        self._data: T | None = None

    @property
    def has_data(self) -> bool:
        """Whether the value has been loaded."""
        return self._data is not None

    @abstractmethod
    async def fetch(self, client: Client, place: Place) -> T:
        """Requests the value. Raises ClientError."""

    @abstractmethod
    def data_page(self, data: T, frame: Frame) -> Page:
        """The page of the value."""

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the value."""
        self._data = await self.fetch(client, place)

    def page(self, frame: Frame) -> Page:
        """The page of the value; an empty one before it has been loaded."""
        return Page([], []) if self._data is None else self.data_page(self._data, frame)

    def document(self) -> object:
        """The value."""
        return self._data


def to_float(number: Number | None) -> float | None:
    """A number for a chart."""
    if number is None:
        return None
    try:
        return max(min(float(number), MAX_FLOAT), -MAX_FLOAT)
    except OverflowError:  # of an int; a larger Decimal is infinite
        return MAX_FLOAT if number > 0 else -MAX_FLOAT


def required_app(place: Place) -> str:
    """The application of a view that has one; `parse_place` and the console open none without."""
    return place.app or ""


def range_text(place: Place) -> str:
    """The range of a chart, and the day that it ends on unless it ends now."""
    return place.range if place.past is None else f"{place.range} to {place.past}"


def cycle(items: Sequence[str], current: str | None, offset: int) -> str | None:
    """The item `offset` places after the current one, after the last the first; None if there are none."""
    if not items:
        return None
    index = items.index(current) if current in items else 0
    return items[(index + offset) % len(items)]


def change_text(values: Sequence[Number | None], glyphs: Glyphs) -> str:
    """The change from the first known value to the last one: ▲3.1 %. Empty where a value lacks or the first is zero."""
    known = [number for value in values if (number := to_float(value)) is not None]
    if len(known) < 2 or not known[0] or values[-1] is None:
        return ""
    percent = 100 * (known[-1] - known[0]) / abs(known[0])
    digits = 1 if abs(percent) < MIN_WHOLE_PERCENT else 0
    return f"{glyphs.up if percent >= 0 else glyphs.down}{abs(percent):,.{digits}f} %"
