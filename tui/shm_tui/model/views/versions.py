"""Versions: the shares of the releases over time, how fast installs move to each, and which are behind."""

from shm_client import Client
from shm_client.figures import Adoption, Versions
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow, range_text, required_app, to_float
from shm_tui.model.views.chart_block import TimeAxis, band_mark, reading_label, stacked_block
from shm_tui.model.views.filter_terms import equals_term
from shm_tui.text.charts import share_bar, sparkline
from shm_tui.text.formatting import UNKNOWN, plural, share
from shm_tui.text.lines import Line, TableColumn, facts, make_table

COLUMNS = (
    TableColumn(""),
    TableColumn("VERSION", max_width=24),
    TableColumn("INSTANCES", align_right=True),
    TableColumn("SHARE", align_right=True),
    TableColumn("", rank=3),
    TableColumn("TREND", rank=2),
    TableColumn("BEHIND", align_right=True, rank=1),
    TableColumn("FIRST SEEN", rank=4),
    TableColumn("MOVED", align_right=True, rank=6),
    TableColumn("MEDIAN DAYS", align_right=True, rank=5),
)
BAR_WIDTH, TREND_WIDTH = 12, 14
OTHER = "other versions"


class VersionsView(DataView[Versions]):
    """The releases of one application."""

    async def fetch(self, client: Client, place: Place) -> Versions:
        """Requests the releases."""
        return await client.versions(required_app(place), place.range, place.past)

    def data_page(self, data: Versions, frame: Frame) -> Page:
        """Stacked shares, and a row for each release, the newest first."""
        axis = TimeAxis(data.timestamps, None if frame.place.past else data.running_since)
        index = axis.index(frame.selected_time)
        bands = [*reversed(data.versions.items()), *([(OTHER, data.other)] if any(data.other) else [])]
        total = data.total[index] or 0
        latest = f"{data.latest} is the latest: {share(data.on_latest, data.total[-1] or 0)} run it"
        outdated = sum(version.instances for version in data.behind)
        title = facts(
            "Versions",
            [
                range_text(frame.place),
                latest if data.latest else "no release yet",
                f"{plural(outdated, 'instance')} behind",
            ],
            frame.width,
        )
        if not bands:
            return Page([title], [], empty="No instance has reported a version in this range.")
        table = make_table(
            COLUMNS,
            [_cells(number, name, counts, index, total, data, frame) for number, (name, counts) in enumerate(bands)],
            frame.width - 2,
        )
        chart_height = max(5, min(16, frame.height - len(bands) - 4, frame.height // 2))
        chart = stacked_block([[to_float(count) for count in counts] for _, counts in bands], axis, frame, chart_height)
        reading = ((f" {reading_label(data.timestamps[index], axis, frame)}", "value"), (_rest(table.hidden), "name"))
        rows = [
            PageRow(name, ((" ", ""), *line), None if name == OTHER else _target(frame.place, name))
            for (name, _), line in zip(bands, table.rows, strict=True)
        ]
        return Page([title, *chart, reading, ((" ", ""), *table.head)], rows, data.timestamps)


def releases_behind(data: Versions) -> dict[str, int]:
    """How many releases each version in use is behind the latest one: 0 for pre-releases of the next."""
    behind = {version.version: version.releases_behind for version in data.behind}
    if data.latest is None:
        return behind
    # All versions in use before the latest one are in `behind`; the latest one may be without a list of its own.
    others = {name: 0 for name, counts in data.versions.items() if counts[-1] and name not in behind}
    return behind | others | {data.latest: 0}


def _rest(hidden: list[str]) -> str:
    names = [name.lower() for name in hidden if name]
    return f"   more columns: {', '.join(names)}" if names else ""


def _target(place: Place, version: str) -> Place | None:
    term = equals_term("version", version)
    return None if term is None else place.to_view("instances", filter_text=term)


def _cells(
    number: int, name: str, counts: list[int | None], index: int, total: int, data: Versions, frame: Frame
) -> list[Line]:
    count = counts[index]
    filled, rest = share_bar((count or 0) / total if total else 0.0, BAR_WIDTH, frame.glyphs)
    behind = releases_behind(data).get(name)
    adoption = next((adoption for adoption in data.taken_up if adoption.version == name), None)
    trend = sparkline([to_float(value) for value in counts], TREND_WIDTH, frame.glyphs)
    return [
        (band_mark(number, frame),),
        ((name, "value"),),
        ((UNKNOWN if count is None else f"{count:,}", "value"),),
        ((share(count or 0, total), "value"),),
        ((filled, "chart"), (rest, "track")),
        ((trend, "chart"),),
        (("latest", "good") if name == data.latest else ("" if behind is None else str(behind), "value"),),
        *_adoption_cells(adoption),
    ]


def _adoption_cells(adoption: Adoption | None) -> list[Line]:
    if adoption is None:
        return [((UNKNOWN, "name"),)] * 3
    days = UNKNOWN if adoption.median_days is None else f"{adoption.median_days:.1f}"
    return [
        ((adoption.first_at.strftime("%Y-%m-%d"), "name"),),
        ((f"{adoption.moved:,}", "name"),),
        ((days, "name"),),
    ]
