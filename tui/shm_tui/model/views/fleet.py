"""The fleet: the applications as rows, with what changed in the range, the top metric, version and OS shares."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from shm_client import Application, Client, ClientError, Event, Instance, Kpi, Kpis
from shm_client.figures import Breakdown, Lifecycle, MetricSeries, Period, Versions
from shm_tui.model.place import Place
from shm_tui.model.views.base import Frame, Page, PageRow, View, change_text, to_float
from shm_tui.model.views.events import sentence
from shm_tui.text.charts import sparkline
from shm_tui.text.formatting import UNKNOWN, age, plural, share, with_unit
from shm_tui.text.lines import Line, TableColumn, clip, facts, make_table

MAX_EVENTS = 5  # the newest, as far as they fit a line; the view of events has all
MAX_FOUND = 10  # instances that a search shows
MIN_SEARCHED_CHARS = 3  # fewer are in nearly every instance
MAX_DETAILED = 20  # applications whose details are requested, the largest ones: five requests each
MAX_CONCURRENT_REQUESTS = 4
TREND_WIDTH = 10

COLUMNS = (
    TableColumn("APPLICATION", max_width=20),
    TableColumn("ACTIVE", align_right=True),
    TableColumn("TREND", rank=3),
    TableColumn("NEW", align_right=True, rank=1),
    TableColumn("LOST", align_right=True, rank=1),
    TableColumn("RET", align_right=True, rank=2),
    TableColumn("TOP METRIC", max_width=40, rank=5),
    TableColumn("VERSION", max_width=18, rank=4),
    TableColumn("OS", max_width=28, rank=6),
    TableColumn("STARS", align_right=True, rank=7),
    TableColumn("UPDATED", align_right=True, rank=8),
)


class ApplicationDetails(msgspec.Struct):
    """The data of one application in the fleet. A part is None until it has arrived."""

    application: Application
    kpis: Kpis | None = None
    lifecycle: Lifecycle | None = None
    versions: Versions | None = None
    systems: Breakdown | None = None
    top_series: MetricSeries | None = None


class FleetView(View):
    """All applications of the server."""

    refresh_s = 60.0  # the parts that scan the fleet are computed at most once a minute

    def __init__(self) -> None:
        self.details: list[ApplicationDetails] | None = None  # the largest applications first
        self._events: list[Event] = []  # the newest
        self._found: tuple[str, list[Instance]] = ("", [])  # the filter, and the instances that have its text

    @property
    def has_data(self) -> bool:
        """Whether the applications have been loaded."""
        return self.details is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the applications, then the details of the largest ones. A part that fails keeps its old value."""
        applications = sorted(await client.applications(), key=lambda app: (-app.instances.active, app.name))
        before = {details.application.slug: details for details in self.details or []}
        self.details = [
            msgspec.structs.replace(before.get(app.slug, ApplicationDetails(app)), application=app)
            for app in applications
        ]
        on_change()
        slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

        async def load_details(details: ApplicationDetails) -> None:
            async with slots:
                await _load_details(client, details, place.range)
            on_change()

        parts = map(load_details, self.details[:MAX_DETAILED])
        results = await asyncio.gather(self._load_events(client), *parts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _load_events(self, client: Client) -> None:
        self._events = (await client.events(None, MAX_EVENTS)).events

    async def search(self, client: Client, place: Place) -> None:
        """Requests the instances of all applications that have the text of the filter."""
        text = place.filter
        found = await client.find_instances(text, MAX_FOUND) if len(text) >= MIN_SEARCHED_CHARS else []
        self._found = text, found

    def document(self) -> object:
        """The applications with their details."""
        return self.details

    def page(self, frame: Frame) -> Page:
        """A row for each application whose name or slug has the words of the filter."""
        details = self.details or []
        words = frame.place.filter.split()
        shown = shown_applications(details, frame.place)
        active = sum(each.application.instances.active for each in details)
        total = sum(each.application.instances.total for each in details)
        count = (
            f"{len(shown):,} of {plural(len(details), 'application')}" if words else plural(len(details), "application")
        )
        title = facts(
            "Fleet",
            [count, f"{active:,} active of {plural(total, 'instance')}", frame.place.range, _detail_note(len(details))],
            frame.width,
        )
        if not details:
            return Page([title], [], empty="No instance has reported yet.")
        found = self._found_rows(frame)
        if not shown:
            text = f"No application matches  /{frame.place.filter}\n\nEsc clears the filter."
            return Page([title], found, empty="" if found else text)
        table = make_table(COLUMNS, [_cells(each, frame) for each in shown], frame.width - 2)
        hidden = ", ".join(head.lower() for head in table.hidden)
        rows = [
            PageRow(
                each.application.slug,
                ((" ", ""), *line),
                Place(each.application.slug, range=frame.place.range, at=frame.place.at),
            )
            for each, line in zip(shown, table.rows, strict=True)
        ]
        note: Line = ((f" more columns: {hidden}", "name"),) if hidden else ()
        return Page([title, self._event_line(frame), note, ((" ", ""), *table.head)], rows + found)

    def _found_rows(self, frame: Frame) -> list[PageRow]:
        """The instances that the search has found, below a heading."""
        text, found = self._found
        if not frame.place.filter or text != frame.place.filter or not found:
            return []
        number = f"the first {len(found)}" if len(found) == MAX_FOUND else str(len(found))
        title = f" INSTANCES with /{text} in ID, version, environment or mode: {number}"
        rows = [PageRow("blank found", ()), PageRow("head found", clip(((title, "head"),), frame.width))]
        for each in found:
            names = [each.app_name, each.app_version, each.environment, each.deployment_mode, each.status]
            line: Line = ((f" {each.instance_id}  ", "value"), ("  ".join(fact for fact in names if fact), "name"))
            target = Place(each.app_slug, "instance", (each.instance_id,), range=frame.place.range)
            rows.append(PageRow(f"instance {each.instance_id}", clip(line, frame.width), target))
        return rows

    def _event_line(self, frame: Frame) -> Line:
        """The newest events; those that do not fit are left out as a whole."""
        texts = [
            f"{age(event.at, frame.now)} ago {sentence(event)}{f' in {event.app}' if event.app else ''}"
            for event in self._events
        ]
        return facts("Events", texts, frame.width) if texts else ()


async def _load_details(client: Client, details: ApplicationDetails, period: Period) -> None:
    slug = details.application.slug
    try:
        details.kpis = await client.kpis(slug)
        details.lifecycle = await client.lifecycle(slug, period)
        details.versions = await client.versions(slug, period)
        details.systems = await client.breakdown(slug, "os_arch")
        if (kpi := top_kpi(details.kpis)) is not None:
            details.top_series = await client.series(slug, period, [kpi.key])
    except ClientError as error:
        error.add_note(slug)
        raise


def top_kpi(kpis: Kpis) -> Kpi | None:
    """The business sum that most instances send; the same one while their number has the same power of two."""
    sums = [kpi for kpi in kpis.kpis if kpi.kind == "business" and kpi.aggregate == "sum" and kpi.value is not None]
    return min(sums, key=lambda kpi: (-kpi.instances.bit_length(), kpi.key), default=None)


def shown_applications(details: Sequence[ApplicationDetails], place: Place) -> list[ApplicationDetails]:
    """The applications whose name and slug have the words of the filter."""
    words = place.filter.casefold().split()
    texts = [f"{each.application.name} {each.application.slug}".casefold() for each in details]
    return [each for each, text in zip(details, texts, strict=True) if all(word in text for word in words)]


def _detail_note(count: int) -> str:
    return f"details of the {MAX_DETAILED} largest" if count > MAX_DETAILED else ""


def _cells(details: ApplicationDetails, frame: Frame) -> list[Line]:
    application, days = details.application, details.lifecycle.days if details.lifecycle else []
    trend = sparkline([to_float(day.active) for day in days], TREND_WIDTH, frame.glyphs)
    cells: list[Line] = [((application.name, "value"),), ((f"{application.instances.active:,}", "value"),)]
    cells.append(((trend, "chart"),))
    for name, sign, style in (("new", "+", "good"), ("lost", "−", "bad"), ("returned", "", "value")):
        count = sum(int(getattr(day, name)) for day in days)
        text = f"{sign}{count:,}" if count else "0"
        cells.append(((text if details.lifecycle else UNKNOWN, style if count else "name"),))
    stars = f"{application.stars:,}" if application.github_url else UNKNOWN
    cells += [_top_metric(details, frame), _top_version(details), _systems(details)]
    return [*cells, ((stars, "name"),), ((age(application.updated_at, frame.now), "name"),)]


def _top_metric(details: ApplicationDetails, frame: Frame) -> Line:
    kpi = top_kpi(details.kpis) if details.kpis else None
    if kpi is None:
        return ((UNKNOWN, "name"),)
    values = details.top_series.metrics.get(kpi.key, []) if details.top_series else []
    text = f"{kpi.label} {with_unit(kpi.value, kpi.unit, kpi.format)}"
    change = change_text(values, frame.glyphs)
    return ((f"{text} ", "value"), (change, "good" if change.startswith(frame.glyphs.up) else "warn"))


def _top_version(details: ApplicationDetails) -> Line:
    versions = details.versions
    counts = {name: values[-1] or 0 for name, values in versions.versions.items()} if versions else {}
    if versions is None or not counts:
        return ((UNKNOWN, "name"),)
    name = max(counts, key=lambda name: counts[name])
    return ((f"{name} ", "value"), (share(counts[name], versions.total[-1] or 0), "name"))


def _systems(details: ApplicationDetails) -> Line:
    """The shares of the operating systems, without the architectures."""
    if details.systems is None:
        return ((UNKNOWN, "name"),)
    groups = [*details.systems.values, *([details.systems.rest] if details.systems.rest else [])]
    counts: dict[str, int] = {}
    for group in groups:
        name = (group.value or "other").partition("/")[0][:7]
        counts[name] = counts.get(name, 0) + group.instances
    total = sum(counts.values())
    first = sorted(counts, key=lambda name: -counts[name])[:2]
    return (("  ".join(f"{name} {share(counts[name], total)}" for name in first), "name"),)
