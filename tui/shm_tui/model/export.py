"""The rows of an export: those of the list of instances or of a view, with the filter, the order and the columns of it.

Instances come from the server, page by page, so the table's own number of rows is no limit. Only what the console alone
evaluates (words of a filter, the order of the states) is taken from the rows that it has loaded.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from shm_client import Client
from shm_tui.model.columns import FIXED_COLUMNS, MISSING, STATE, Column, Pinning, metric_column
from shm_tui.model.live_session import LiveSession
from shm_tui.model.place import OF_SERVER, Place
from shm_tui.model.place_sort import column_sorting
from shm_tui.model.row import Row
from shm_tui.model.state import Clock, state_of
from shm_tui.model.views.base import View
from shm_tui.text.json_text import format_json
from shm_tui.text.table_formats import METRICS

PAGE_SIZE = 1_000  # instances, the server's maximum: for each page it sorts the whole fleet

Rows = list[list[object]]

# The metrics of an instance as they were sent, for JSON.
ALL_METRICS = Column(
    "metrics", "metrics", Pinning.NONE, 0, 0, lambda row, _: format_json(row.instance.metrics), lambda *_: MISSING
)


@dataclass(frozen=True, slots=True)
class ExportSource:
    """`pages` yields the rows, with a value for each of `names`. `total`: their number, None if it is unknown.

    `noun` is what one row is, `subject` whose rows they are: `of ledger`. `file_stem` names them in the name of a file.
    `note` says what they lack.
    """

    noun: str
    subject: str
    file_stem: str
    names: list[str]
    pages: Callable[[], AsyncIterator[Rows]]
    total: int | None
    note: str = ""


def export_names(columns: Sequence[Column]) -> list[str]:
    """The names of columns for other programs: `last_seen_at`, `metrics.invoices_sent`."""
    return [METRICS + column.metric if column.metric else _export_name(column) for column in columns]


def _export_name(column: Column) -> str:
    return column.id if column in (STATE, ALL_METRICS) else column.field


def export_row(columns: Sequence[Column], row: Row, clock: Clock) -> list[object]:
    """The values of an instance, with every digit, in the order of the columns."""
    return [_value(column, row, clock) for column in columns]


def instances_source(session: LiveSession, columns: Sequence[Column], filter_text: str) -> ExportSource:
    """The instances of the table."""
    store = session.store
    sorting = column_sorting(store.sort_column, store.is_descending)
    is_evaluated = not store.filter or store.filter.server_filter.is_whole
    names = export_names(columns)
    stem = f"{session.slug or 'all'}-instances"
    of_all = f"of {session.slug or 'all applications'}"
    subject = f"{of_all} matching /{filter_text}" if filter_text else of_all
    if sorting is None or not is_evaluated:
        shown = [store.rows[key] for key in store.visible_ids if key in store.rows]
        note = f"Of the newest {len(store.rows):,} instances only: the server does not evaluate this filter or order."
        note = note if session.is_partial() else ""
        return ExportSource(
            *("instance", subject, stem, names, lambda: _loaded(columns, shown, session.clock()), len(shown), note)
        )
    conditions = store.filter.server_filter.conditions if store.filter else ()
    total = store.known_count if store.is_windowed or not session.is_partial() else None

    listed = list_source(session.client, session.slug, conditions, sorting, columns, session.clock)
    return replace(listed, subject=subject, file_stem=stem, total=total)


def list_source(
    client: Client,
    slug: str | None,
    conditions: Sequence[str],
    sorting: tuple[str, str],
    columns: Sequence[Column],
    clock: Callable[[], Clock],
) -> ExportSource:
    """The instances of an application, or of all (None), that match conditions, from the server page by page.

    Reading them raises ClientError.
    """

    async def pages() -> AsyncIterator[Rows]:
        page = await client.read_page(slug, conditions, sorting, PAGE_SIZE)
        while True:
            now = clock()
            yield [export_row(columns, Row(instance), now) for instance in page.instances]
            if page.next is None:
                return
            page = await client.next_page(page.next)

    return ExportSource("instance", "of a list", "instances", export_names(columns), pages, None)


def parse_columns(text: str) -> list[Column]:
    """The columns of a list of names with commas: columns of the table, names of exports, or metrics' keys."""
    return [_find_column(name.strip()) for name in text.split(",") if name.strip()]


def _find_column(name: str) -> Column:
    fixed = next((column for column in FIXED_COLUMNS if name in (column.id, column.label, _export_name(column))), None)
    key = name.removeprefix(METRICS)
    return fixed or metric_column(key, key, is_numeric=True)


def select_columns(source: ExportSource, names: Sequence[str]) -> ExportSource:
    """The same rows with some of their columns."""
    indexes = [source.names.index(name) for name in names]

    async def pages() -> AsyncIterator[Rows]:
        async for rows in source.pages():
            yield [[row[index] for index in indexes] for row in rows]

    return replace(source, names=list(names), pages=pages)


def view_source(view: View, place: Place) -> ExportSource:
    """The rows of a view."""
    from shm_tui.model.view_records import view_records  # loads the views

    names, rows = view_records(view, place)
    app = None if place.view in OF_SERVER else place.app
    subject = " ".join(["of the view", place.view, *place.arguments]) + (f" of {app}" if app else "")
    stem = "-".join([*([app] if app else []), place.view])
    return ExportSource("row", subject, stem, names, lambda: _at_once(rows), len(rows))


async def _loaded(columns: Sequence[Column], rows: Sequence[Row], clock: Clock) -> AsyncIterator[Rows]:
    for start in range(0, len(rows), PAGE_SIZE):
        yield [export_row(columns, row, clock) for row in rows[start : start + PAGE_SIZE]]


async def _at_once(rows: Rows) -> AsyncIterator[Rows]:
    yield rows


def _value(column: Column, row: Row, clock: Clock) -> object:
    if column is ALL_METRICS:
        return row.instance.metrics
    if column.metric is not None:
        return row.metrics.get(column.metric)
    if column is STATE:
        return state_of(row.instance, clock).label
    return getattr(row.instance, column.field)
