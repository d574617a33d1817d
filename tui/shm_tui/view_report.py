"""`--once --view`: a view as text, or as one JSON document, from the same data and lines as on the screen."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import msgspec

from shm_client import Client
from shm_tui.errors import NoDataError
from shm_tui.model.place import NEEDS_APPLICATION, Place, render_place
from shm_tui.model.views.base import Frame, View
from shm_tui.model.views.fleet import FleetView, shown_applications
from shm_tui.model.views.registry import make_view
from shm_tui.text.glyphs import choose_glyphs
from shm_tui.text.lines import plain

CHART_WIDTH = 100  # cells of a chart at most: lines may have no limit
HEIGHT = 36  # lines of a screen, from which the height of a chart follows; all rows are printed

_encoder = msgspec.json.Encoder(decimal_format="number")


class ViewReport(msgspec.Struct):
    """The JSON document. `data` has the members of the API's answers."""

    server: str
    as_of: datetime
    place: str
    data: object


async def fetch_view(client: Client, place: Place) -> tuple[View, Place]:
    """Loads a view; without an application, that of the largest one. Raises ClientError, or NoDataError without any."""
    if place.view in NEEDS_APPLICATION and place.app is None:
        applications = await client.applications()
        largest = max(applications, key=lambda app: app.instances.total, default=None)
        if largest is None:
            raise NoDataError(f"{place.view} is of one application, and none has reported yet")
        place = replace(place, app=largest.slug)
    view = make_view(place.view)
    await view.load(client, place, lambda: None)
    return view, place


def to_json(client: Client, view: View, place: Place) -> str:
    """The view's data as one JSON document. Numbers keep their digits."""
    data = view.document()
    if isinstance(view, FleetView):
        data = shown_applications(view.details or [], place)
    report = ViewReport(client.server, client.server_time(), render_place(place), data)
    return _encoder.encode(report).decode()


def to_text(client: Client, view: View, place: Place, width: int, encoding: str, note: Callable[[str], object]) -> str:
    """The view's lines. No line is wider than `width` cells. `note` gets why there are no rows."""
    frame = Frame(
        *(width, HEIGHT, client.server_time(), place, choose_glyphs(encoding)),
        has_colours=False,
        max_chart_width=CHART_WIDTH,
        has_keys=False,
    )
    page = view.page(frame)
    lines = [*page.head, *(row.line for row in page.rows)]
    if page.empty:
        note(" ".join(page.empty.splitlines()[0].split()))  # the next lines have keys of the screen
    return "\n".join(plain(line).rstrip() for line in lines)
