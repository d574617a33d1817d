"""`--once`: data on standard output, for pipes and cron. What they lack, and errors, are sentences on standard error.

The exit status is 0, or 3 where nothing matches the filter; `command` has the others.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from shm_client import Category, Client, ClientError, Flag, Kpi, UnknownApplicationError
from shm_tui.config.contexts import make_client
from shm_tui.errors import ConsoleError, ListError
from shm_tui.model.columns import APPLICATION, FIXED_COLUMNS, Column, metric_column
from shm_tui.model.export import (
    ALL_METRICS,
    ExportSource,
    Rows,
    export_names,
    export_row,
    list_source,
    parse_columns,
    select_columns,
    view_source,
)
from shm_tui.model.place import VIEW_NAMES, Place
from shm_tui.model.place_sort import server_sorting
from shm_tui.model.row import Row
from shm_tui.model.state import Clock
from shm_tui.model.views.base import View
from shm_tui.text.encoding import UNKNOWN, in_encoding, json_in_encoding, table_in_encoding
from shm_tui.text.formatting import timestamp
from shm_tui.text.table_formats import METRICS, TableFormat, render_head, render_rows

UNLIMITED_WIDTH = 100_000  # cells of a line where there is no terminal: lines are not cut
MIN_WATCH_S = 1.0  # between two outputs: each takes dozens of requests
MAX_WATCH_S = 86_400.0  # cron does the rest
BROKEN_PIPE_STATUS = 1  # the reader of a pipe has closed it before the end: as `shm export`
NOTHING_STATUS = 3  # nothing matches the filter
MAX_KEYS = 500  # metrics with a column by default: those that the server describes at once
MAX_NAMES = 12  # of those that the server has, where an option has none of them
FILTERED_VIEWS = ("instances", "fleet")
PAST_VIEWS = ("versions", "metric")


@dataclass(frozen=True, slots=True)
class OnceOptions:
    """The options of `--once`. `format`: rows for another program; else `as_json`, else text for people."""

    place: Place
    as_json: bool = False
    format: TableFormat | None = None
    columns: str = ""
    watch_s: float | None = None


class _OutputClosed(Exception):
    """The reader of the pipe has closed it."""


def invalid_options(options: OnceOptions) -> str:
    """Why the options do not fit together; "" if they do."""
    if options.as_json and options.format:
        return "--json and --format exclude each other"
    if options.watch_s is not None and options.format:
        return "--watch prints text or --json, not --format"
    if options.watch_s is not None and not MIN_WATCH_S <= options.watch_s <= MAX_WATCH_S:
        return f"--watch is at least {MIN_WATCH_S:g} second and at most {MAX_WATCH_S:g}"
    if options.columns and not options.format and (options.as_json or options.place.view != "instances"):
        return "--columns chooses columns of the list of instances, or with --format of a view"
    if options.columns and not parse_columns(options.columns):
        return "--columns names no column"
    if options.place.filter and options.place.view not in FILTERED_VIEWS:
        return f"--filter is for the views {' and '.join(FILTERED_VIEWS)}, not for {options.place.view}"
    if options.place.at is not None and options.place.view not in PAST_VIEWS:
        return f"at is for the views {' and '.join(PAST_VIEWS)}, not for {options.place.view}"
    if options.place.sort and options.place.view != "instances":
        return f"--sort is for the list of instances, not for {options.place.view}"
    return ""


def run_once(server: str, token: str, options: OnceOptions) -> int:
    """Prints the data, once or in intervals, and returns the exit status. Raises ConsoleError and ClientError."""
    run = _run(server, token, options) if options.watch_s is None else _watch(server, token, options)
    try:
        return asyncio.run(run)
    except _OutputClosed:
        return BROKEN_PIPE_STATUS


def print_note(sentence: str) -> None:
    """Prints a sentence to standard error."""
    print(f"shm console: {in_encoding(sentence, sys.stderr.encoding or 'utf-8')}", file=sys.stderr)  # noqa: T201


async def _watch(server: str, token: str, options: OnceOptions) -> int:
    """Prints the data again and again. A server that is away is noted, and requested again."""
    interval_s = options.watch_s or MIN_WATCH_S
    while True:
        started_at = monotonic()
        if not options.as_json:
            _print(f"{timestamp(datetime.now(UTC))}\n")
        try:
            await _run(server, token, options)
        except ClientError as error:
            print_note(str(error))
        if not options.as_json:
            _print("\n")
        await asyncio.sleep(max(0.0, started_at + interval_s - monotonic()))


async def _run(server: str, token: str, options: OnceOptions) -> int:
    async with make_client(server, token) as client:
        try:
            return await _print_data(client, options)
        except UnknownApplicationError as error:
            await _check_application(client, options.place)
            raise ListError(str(error)) from None


async def _print_data(client: Client, options: OnceOptions) -> int:
    if options.format is not None:
        return await _print_records(client, options, options.format)
    if options.place.view != "instances":
        return await _print_view(client, options)
    await _check_sort(client, options.place)
    if options.columns:
        return await _print_columns(client, options)
    return await _print_report(client, options)


async def _check_application(client: Client, place: Place) -> None:
    """Raises ListError with the names that are possible for a place whose application does not exist."""
    slugs = [application.slug for application in await client.applications()]
    if place.app and place.app not in slugs:
        raise ListError(
            f"no application has the slug {place.app}; there are: {_first_names(slugs)}. "
            f"The views are: {', '.join(VIEW_NAMES)}"
        )


async def _fetch_view(client: Client, place: Place) -> tuple[View, Place]:
    """Loads a view. Raises ListError if its arguments name a metric that the application does not have."""
    from shm_tui.view_report import fetch_view

    view, place = await fetch_view(client, place)
    if names := view.unknown_names():
        metrics: list[Kpi | Flag | Category] = [*view.kpis.kpis, *view.kpis.flags, *view.kpis.categories]
        known = [metric.key for metric in metrics]
        raise ListError(f"{place.app} has no metric {', '.join(names)}; it has: {_first_names(known)}")
    return view, place


def _first_names(names: Sequence[str]) -> str:
    """Some of the names, and whether there are more."""
    more = ["…"] if len(names) > MAX_NAMES else []
    return ", ".join([*names[:MAX_NAMES], *more]) or "none"


async def _print_report(client: Client, options: OnceOptions) -> int:
    from shm_tui import report

    data = await report.fetch_report(client, options.place)
    if options.as_json:
        _print(report.to_json(data) + "\n", json_in_encoding)
    elif text := report.to_text(data, _width(), print_note):
        _print(text + "\n")
    return NOTHING_STATUS if data.matching_instances == 0 else 0


async def _print_view(client: Client, options: OnceOptions) -> int:
    from shm_tui import view_report

    view, place = await _fetch_view(client, options.place)
    if options.as_json:
        _print(view_report.to_json(client, view, place) + "\n", json_in_encoding)
    else:
        _print(view_report.to_text(client, view, place, _width(), sys.stdout.encoding or "utf-8", print_note) + "\n")
    return NOTHING_STATUS if place.filter and not view_source(view, place).total else 0


async def _print_columns(client: Client, options: OnceOptions) -> int:
    """The chosen columns of the first instances, as a table."""
    from shm_tui.report import MAX_INSTANCES, list_conditions, text_table

    place, columns = options.place, parse_columns(options.columns)
    conditions = await list_conditions(client, place.filter)
    clock = await _clock(client)
    page = await client.read_page(place.app, conditions, server_sorting(place.sort), MAX_INSTANCES)
    rows = [[column.text(Row(instance), clock) for column in columns] for instance in page.instances]
    if not rows:
        return await _note_nothing(client, place)
    if page.next is not None:
        print_note(f"These are the first {len(rows):,} instances; --format csv or jsonl prints all.")
    names = export_names(columns)
    _note_empty(names, {*names} - _filled(names, [export_row(columns, Row(each), clock) for each in page.instances]))
    right = {index for index, column in enumerate(columns) if column.align_right}
    _print(text_table("", [column.label or column.id for column in columns], rows, right, _width(), print_note) + "\n")
    return 0


async def _print_records(client: Client, options: OnceOptions, format_: TableFormat) -> int:
    """All rows of the list, page by page, or those of a view, in a format for other programs."""
    source, place = await _source(client, options, format_)
    convert = json_in_encoding if format_ == "jsonl" else in_encoding
    is_first, empty = True, set(source.names)
    async for rows in source.pages():
        if rows and is_first:
            _print(render_head(format_, source.names), convert)
        is_first = is_first and not rows
        _print(render_rows(format_, source.names, rows), convert)
        empty -= _filled(source.names, rows)
    if is_first:
        return await _note_nothing(client, place)
    if options.columns:
        _note_empty(source.names, empty)
    return 0


def _filled(names: Sequence[str], rows: Rows) -> set[str]:
    """The columns in which a row has a value."""
    return {name for row in rows for name, value in zip(names, row, strict=True) if value is not None}


def _note_empty(names: Sequence[str], empty: Collection[str]) -> None:
    """Notes the chosen columns in which no row has a value: their names may be misspelled."""
    if unknown := [name for name in names if name in empty]:
        print_note(f"No row has a value of: {', '.join(unknown)}.")


async def _source(client: Client, options: OnceOptions, format_: TableFormat) -> tuple[ExportSource, Place]:
    place = options.place
    if place.view != "instances":
        view, place = await _fetch_view(client, place)
        return _choose_columns(view_source(view, place), options.columns), place
    from shm_tui.report import list_conditions

    await _check_sort(client, place)
    conditions = await list_conditions(client, place.filter)
    columns = parse_columns(options.columns) or await _default_columns(client, place.app, format_)
    clock = await _clock(client)
    return list_source(client, place.app, conditions, server_sorting(place.sort), columns, lambda: clock), place


def _choose_columns(source: ExportSource, text: str) -> ExportSource:
    """The rows of a view with some of its columns. Raises ListError for a name that it does not have."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in source.names]:
        raise ListError(f"the view has no column {unknown[0]}, only {', '.join(source.names)}")
    return select_columns(source, wanted) if wanted else source


async def _default_columns(client: Client, slug: str | None, format_: TableFormat) -> list[Column]:
    """Every column that an instance has. JSON has the metrics as they were sent."""
    fixed = [column for column in FIXED_COLUMNS if slug is None or column is not APPLICATION]
    if format_ == "jsonl":
        return [*fixed, ALL_METRICS]
    keys = [metric.key for metric in await client.metric_keys(slug) if not metric.hidden]
    if len(keys) >= MAX_KEYS:
        print_note(f"Only the {len(keys)} metrics of the most instances have a column; --format jsonl has all.")
    return [*fixed, *(metric_column(key, key, is_numeric=True) for key in keys)]


async def _check_sort(client: Client, place: Place) -> None:
    """Notes an order by a metric that no instance has: rows with a value come first in both directions."""
    field, direction = server_sorting(place.sort)
    if not field.startswith(METRICS):
        return
    page = await client.read_page(place.app, (), (field, direction), 1)
    key = field.removeprefix(METRICS)
    if any(key not in Row(instance).metrics for instance in page.instances):
        print_note(f"No instance has the metric {key}, by which --sort orders.")


async def _clock(client: Client) -> Clock:
    return Clock(client.server_time(), (await client.stats()).active_window_s)


async def _note_nothing(client: Client, place: Place) -> int:
    """Says why there is no row. Raises UnknownApplicationError."""
    if place.app is not None and place.view == "instances" and not place.filter:
        await client.kpis(place.app)
    print_note("No instance matches the filter." if place.filter else "There is nothing yet.")
    return NOTHING_STATUS if place.filter else 0


def _print(text: str, convert: Callable[[str, str], str] = table_in_encoding) -> None:
    """Prints to standard output, in an encoding that may lack characters. Raises ConsoleError."""
    encoding = sys.stdout.encoding or "utf-8"
    converted = convert(text, encoding)
    if convert is table_in_encoding and converted.count(UNKNOWN) > text.count(UNKNOWN):
        print_note(f"The encoding {encoding} lacks characters, which are {UNKNOWN}; --format has them as escapes.")
    try:
        sys.stdout.write(converted)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes standard output at exit and would report the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise _OutputClosed from None
        raise ConsoleError(f"standard output cannot be written: {error.strerror}") from None


def _width() -> int:
    """The width of the terminal or of COLUMNS; without both, no limit."""
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size().columns if has_width else UNLIMITED_WIDTH
