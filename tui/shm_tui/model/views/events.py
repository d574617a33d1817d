"""Events: what happened to the applications and to the server, the newest first."""

from shm_client import Client, Event
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow
from shm_tui.text.formatting import age, plural
from shm_tui.text.lines import Line, TableColumn, facts, make_table

MAX_EVENTS = 500  # the newest; a person reads no more

COLUMNS = (
    TableColumn("AGO", align_right=True),
    TableColumn("EVENT", max_width=90),
    TableColumn("APPLICATION", max_width=24),
    TableColumn("TIME", rank=1),
)


class EventsView(DataView[list[Event]]):
    """The events of one application, or of all and the server."""

    def __init__(self) -> None:
        super().__init__()
        self._has_more = False

    async def fetch(self, client: Client, place: Place) -> list[Event]:
        """Requests the newest events."""
        page = await client.events(place.app, MAX_EVENTS)
        self._has_more = page.next is not None
        return page.events

    def data_page(self, data: list[Event], frame: Frame) -> Page:
        """A row for each event."""
        number = f"the newest {len(data):,}" if self._has_more else plural(len(data), "event")
        title = facts("Events", [f"{number} within a year"], frame.width)
        if not data:
            return Page([title], [], empty="Nothing has happened yet.")
        table = make_table(COLUMNS, [_cells(event, frame) for event in data], frame.width - 2)
        rows = [
            PageRow(event.id, ((" ", ""), *line), _target(event, frame.place))
            for event, line in zip(data, table.rows, strict=True)
        ]
        return Page([title, ((" ", ""), *table.head)], rows)


def sentence(event: Event) -> str:
    """An event in words."""
    count = event.instances or 0
    match event.kind:
        case "version_seen":
            return f"{event.version} seen for the first time"
        case "instances_lost":
            return f"{plural(count, 'instance')} lost"
        case "instances_returned":
            return f"{plural(count, 'instance')} returned"
        case "approvals_due":
            return f"{plural(count, 'instance')} waiting for approval"
        case "registration_flood":
            return f"a flood of registrations: {plural(count, 'new instance')}"
        case "server_started":
            return f"server {event.version} started"
    return event.kind.replace("_", " ")  # of a newer server


def _cells(event: Event, frame: Frame) -> list[Line]:
    style = "warn" if event.kind in ("approvals_due", "registration_flood") else "value"
    return [
        ((age(event.at, frame.now), "name"),),
        ((sentence(event), style),),
        ((event.app or "", "name"),),
        ((event.at.strftime("%Y-%m-%d %H:%MZ"), "name"),),
    ]


def _target(event: Event, place: Place) -> Place | None:
    """The view that shows what the event counts."""
    if event.app is None:
        return None
    of_app = Place(event.app, "versions", range=place.range, at=place.at)
    match event.kind:
        case "version_seen":
            return of_app
        case "instances_lost" | "instances_returned":
            return of_app.to_view("lifecycle")
        case "approvals_due":
            return of_app.to_view("instances", filter_text="status:pending")
        case _:
            return of_app.to_view("instances")
