"""The report of `--once`: the console's data as tables of text, or as one JSON document."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from textwrap import wrap

import msgspec
from rich.cells import cell_len

from shm_client import Application, Category, Client, Flag, Instance, Kpi, MetricKey, Stats
from shm_client.model import Value
from shm_tui.errors import ListError
from shm_tui.model.columns import FIXED_COLUMNS, SEEN, STATE
from shm_tui.model.disk import disk_warning
from shm_tui.model.filter import Filter, FilterError, MissingRankError, parse_filter
from shm_tui.model.place import Place
from shm_tui.model.place_sort import server_sorting
from shm_tui.model.row import Row, format_value
from shm_tui.model.state import Clock, State, state_of
from shm_tui.text.cells import fit
from shm_tui.text.formatting import UNKNOWN, compact, exact, plural, round_mean, share, with_unit

MAX_APPLICATIONS = 20  # the largest ones
MAX_KEYS = 1_000  # described in addition to those of the most instances
MAX_INSTANCES = 200  # those that were seen last; `shm export` has all
INDENT, GAP = 2, 2  # cells

Note = Callable[[str], object]  # gets a sentence for standard error
MIN_NOTE_WIDTH = 20  # cells of a note, however short the lines are

_encoder = msgspec.json.Encoder(decimal_format="number")


class ReportedInstance(msgspec.Struct):
    """An instance and the label of its state."""

    state: str
    instance: Instance


class ReportedApplication(msgspec.Struct):
    """An application and its metrics."""

    application: Application
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category]


class Report(msgspec.Struct):
    """The whole report. The field names are those of the JSON document."""

    server: str
    as_of: datetime
    stats: Stats
    applications: list[ReportedApplication]
    more_applications: bool
    metric_keys: list[MetricKey]
    instances: list[ReportedInstance]
    more_instances: bool
    matching_instances: int | None


async def fetch_report(client: Client, place: Place) -> Report:
    """Requests the report's data, of one application or of all, with the filter and the order of a place.

    Raises ClientError, and ListError for a filter that the server does not evaluate.
    """
    slug = place.app
    conditions = await list_conditions(client, place.filter)
    stats = await client.stats()
    applications = [app for app in await client.applications() if slug in (None, app.slug)]
    if slug is not None and not applications:
        await client.kpis(slug)  # raises UnknownApplicationError
    sections = []
    for application in sorted(applications, key=lambda app: -app.instances.total)[:MAX_APPLICATIONS]:
        kpis = await client.kpis(application.slug)
        sections.append(ReportedApplication(application, kpis.kpis, kpis.flags, kpis.categories))
    page = await client.read_page(slug, conditions, server_sorting(place.sort), MAX_INSTANCES)
    matching = await client.count_instances(slug, conditions) if conditions else None
    keys = {metric.key: metric for metric in await client.metric_keys(slug)}
    more_keys = sorted({key for instance in page.instances for key in Row(instance).metrics} - keys.keys())[:MAX_KEYS]
    keys |= {metric.key: metric for metric in await client.metric_keys(slug, more_keys)}
    clock = Clock(client.server_time(), stats.active_window_s)
    lines = [ReportedInstance(state_of(instance, clock).label, instance) for instance in page.instances]
    descriptions = list(keys.values())
    return Report(
        *(client.server, clock.now, stats, sections, len(applications) > len(sections)),
        *(descriptions, lines, page.next is not None, matching),
    )


async def list_conditions(client: Client, text: str) -> tuple[str, ...]:
    """The conditions of a filter that the server evaluates as a whole; none without a filter. Raises ListError."""
    if not text:
        return ()
    ranks: dict[str, str] = {}
    parsed: Filter | None = None
    while parsed is None:
        try:
            parsed = parse_filter(text, ranks=ranks)
        except MissingRankError as error:
            ranks[error.version] = await client.version_rank(error.version)
        except FilterError as error:
            raise ListError(f"the filter {text} is invalid: {error}") from None
    if not parsed.server_filter.is_whole:
        raise ListError(f"the filter {text} has a term that only the console evaluates, not the server")
    return parsed.server_filter.conditions


def to_json(report: Report) -> str:
    """The report as one JSON document. Numbers keep their digits."""
    return _encoder.encode(report).decode()


def to_text(report: Report, width: int, note: Note) -> str:
    """The report as tables of text. No line is wider than `width` cells. `note` gets what the tables lack."""
    stats = report.stats
    summary = (
        f"SHM {report.server}: {plural(stats.total_instances, 'instance')}, {stats.active_instances:,} active "
        f"({stats.counted_instances:,} counted, {stats.excluded_instances:,} excluded as dev, ci or ephemeral), "
        f"{stats.daily_active:,} today, {stats.weekly_active:,} this week, {stats.new_this_week:,} new this week"
    )
    parts = ["\n".join(wrap(summary, max(width, MIN_NOTE_WIDTH)))]
    parts += [disk_warning(stats.disk, report.as_of)]
    parts += [_applications(report, width, note)]
    parts += [_metrics(section, width, note) for section in report.applications]
    parts += [_instances(report, width, note)]
    return "\n\n".join(part for part in parts if part)


def _applications(report: Report, width: int, note: Note) -> str:
    rows = [
        [application.name, application.slug, *(f"{count:,}" for count in _counts(application))]
        for application in (section.application for section in report.applications)
    ]
    headers = ["application", "slug", "total", "active", "counted", "pending", "revoked"]
    if not rows:
        note("No instance has reported yet.")
        return ""
    if report.more_applications:
        note(f"These are the {len(rows):,} largest applications; --app shows another one.")
    return text_table("APPLICATIONS", headers, rows, {2, 3, 4, 5, 6}, width, note)


def _counts(application: Application) -> tuple[int, ...]:
    counts = application.instances
    return counts.total, counts.active, counts.counted, counts.pending, counts.revoked


def _metrics(section: ReportedApplication, width: int, note: Note) -> str:
    rows = [
        [kpi.key, kpi.kind, kpi.aggregate, _value(kpi), *_format_distribution(kpi), f"{kpi.instances:,}"]
        for kpi in section.kpis
    ]
    rows += [
        [flag.key, flag.kind, "share", share(flag.true, flag.instances), *[UNKNOWN] * 4, f"{flag.instances:,}"]
        for flag in section.flags
    ]
    rows += [
        [category.key, category.kind, "values", _format_categories(category), *[UNKNOWN] * 4, f"{category.instances:,}"]
        for category in section.categories
    ]
    headers = ["metric", "kind", "aggregate", "value", "min", "p50", "p90", "max", "instances"]
    return text_table(section.application.name.upper(), headers, rows, {3, 4, 5, 6, 7, 8}, width, note) if rows else ""


def _value(kpi: Kpi) -> str:
    return " ".join([exact(round_mean(kpi.value)), *([kpi.unit] if kpi.unit else [])])


def _format_distribution(kpi: Kpi) -> list[str]:
    return [compact(kpi.min), compact(kpi.p50), compact(kpi.p90), compact(kpi.max)]


def _format_categories(category: Category) -> str:
    first = ", ".join(f"{item.value} {share(item.instances, category.instances)}" for item in category.values[:3])
    return first + (", …" if len(category.values) > 3 or category.other else "")


def _instances(report: Report, width: int, note: Note) -> str:
    clock = Clock(report.as_of, report.stats.active_window_s)
    columns = [column for column in FIXED_COLUMNS if column is not STATE]
    descriptions = {metric.key: metric for metric in report.metric_keys}
    glyphs = {state.label: state.glyph for state in State}
    rows = []
    for line in report.instances:
        row = Row(line.instance)
        metrics = [
            f"{key} {_format_metric(row.metrics[key], descriptions.get(key))}"
            for key in sorted(row.metrics)
            if key not in descriptions or not descriptions[key].hidden
        ]
        rows.append(
            [
                f"{glyphs[line.state]} {line.state}",
                *(column.text(row, clock) for column in columns),
                ", ".join(metrics),
            ]
        )
    headers = ["state", *(column.label for column in columns), "metrics"]
    if not rows:
        if report.matching_instances is not None:
            note("No instance matches the filter.")
        return ""
    if report.more_instances:
        of_all = "" if report.matching_instances is None else f" of {report.matching_instances:,}"
        note(f"These are the first {len(rows):,} instances{of_all}; --format csv or jsonl prints all.")
    return text_table("INSTANCES", headers, rows, {1 + columns.index(SEEN)}, width, note)


def _format_metric(value: Value, description: MetricKey | None) -> str:
    if description is None or isinstance(value, bool) or not isinstance(value, int | Decimal):
        return format_value(value)
    return with_unit(value, description.unit, description.format)


def text_table(
    title: str, headers: list[str], rows: list[list[str]], right_aligned: set[int], width: int, note: Note
) -> str:
    """A table with its title. Where the line is too short, the last columns are cut or omitted, which a note says."""
    widths = [max(cell_len(row[index]) for row in [headers, *rows]) for index in range(len(headers))]
    lines = [title] if title else []
    shown, is_cut = len(headers), False
    for row in [headers, *rows]:
        remaining = width - INDENT
        cells = []
        for index, text in enumerate(row):
            cell_width = min(widths[index], remaining)
            if cell_width < min(4, widths[index]):
                shown = min(shown, index)
                break
            is_cut = is_cut or cell_len(text) > cell_width
            cells.append(fit(text, cell_width, index in right_aligned))
            remaining -= cell_width + GAP
        lines.append((" " * INDENT + (" " * GAP).join(cells)).rstrip())
    cut = [f"{headers[shown - 1]} (cut)"] if is_cut and shown else []
    if cut or shown < len(headers):
        missing = ", ".join([*cut, *headers[shown:]])
        note(f"{title}: {width} columns have no room for: {missing}. A larger COLUMNS has.".removeprefix(": "))
    return "\n".join(lines)
