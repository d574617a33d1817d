"""`--once`: what the console shows, printed and done; as tables of text, or the same as one JSON document."""

from datetime import datetime
from decimal import Context, Decimal

import msgspec
from rich.cells import cell_len

from shm_client import Application, Category, Client, Flag, Instance, Kpi, MetricKey, Stats
from shm_client.model import Value
from shm_tui.model.columns import Moment, Row, value_text
from shm_tui.model.state import State, state_of
from shm_tui.text.cells import fit
from shm_tui.text.formatting import NOTHING, age, compact, exact, measured, plural, share

MOST_APPLICATIONS = 20  # whose KPIs are printed
MAX_KEYS = 1_000  # of metrics that are described beside those that most instances answer
MOST_INSTANCES = 200  # the newest seen; a file of all of them is an export
TITLE, GAP = 2, 2
WIDE = Context(prec=700)  # digits of the largest number with the smallest fraction that the protocol lets in

_encoder = msgspec.json.Encoder(decimal_format="number")


class Line(msgspec.Struct):
    """An instance with its state in a word."""

    state: str
    instance: Instance


class Section(msgspec.Struct):
    """An application with its metrics."""

    application: Application
    kpis: list[Kpi]
    flags: list[Flag]
    categories: list[Category]


class Report(msgspec.Struct):
    """All that is printed."""

    server: str
    as_of: datetime
    stats: Stats
    applications: list[Section]
    metric_keys: list[MetricKey]
    instances: list[Line]
    more_instances: bool


async def look(client: Client, slug: str | None) -> Report:
    """Asks the server once. Raises ClientError."""
    stats = await client.stats()
    applications = [one for one in await client.applications() if slug in (None, one.slug)]
    if slug is not None and not applications:
        await client.kpis(slug)  # says that there is no such application
    sections = []
    for application in sorted(applications, key=lambda one: -one.instances.total)[:MOST_APPLICATIONS]:
        kpis = await client.kpis(application.slug)
        sections.append(Section(application, kpis.kpis, kpis.flags, kpis.categories))
    page = await client.instances(slug, MOST_INSTANCES)
    keys = {one.key: one for one in await client.metric_keys(slug)}
    further = sorted({key for one in page.instances for key in Row(one).leaves} - keys.keys())[:MAX_KEYS]
    keys |= {one.key: one for one in await client.metric_keys(slug, further)}
    moment = Moment(client.server_time(), stats.active_window_s)
    lines = [Line(state_of(one, moment.now, moment.active_window_s).word, one) for one in page.instances]
    return Report(client.server, moment.now, stats, sections, list(keys.values()), lines, page.next is not None)


def as_json(report: Report) -> str:
    """One JSON document; numbers keep their digits."""
    return _encoder.encode(report).decode()


def as_text(report: Report, width: int) -> str:
    """Tables of text, no line wider than `width`."""
    stats = report.stats
    parts = [
        f"SHM {report.server}: {plural(stats.total_instances, 'instance')}, {stats.active_instances:,} active "
        f"({stats.counted_instances:,} counted, {stats.excluded_instances:,} dev and ci apart), "
        f"{stats.daily_active:,} today, {stats.weekly_active:,} this week, {stats.new_this_week:,} new this week"
    ]
    parts += [_applications(report, width)]
    parts += [_metrics(section, width) for section in report.applications]
    parts += [_instances(report, width)]
    return "\n\n".join(part for part in parts if part)


def _applications(report: Report, width: int) -> str:
    rows = [
        [one.name, one.slug, *(f"{count:,}" for count in _counts(one))]
        for one in (section.application for section in report.applications)
    ]
    heads = ["application", "slug", "total", "active", "counted", "pending", "revoked"]
    return _table("APPLICATIONS", heads, rows, {2, 3, 4, 5, 6}, width) if rows else "Nothing has reported yet."


def _counts(one: Application) -> tuple[int, ...]:
    counts = one.instances
    return counts.total, counts.active, counts.counted, counts.pending, counts.revoked


def _metrics(section: Section, width: int) -> str:
    rows = [
        [kpi.key, kpi.kind, kpi.aggregate, _value(kpi), *_spread(kpi), f"{kpi.instances:,}"] for kpi in section.kpis
    ]
    rows += [
        [flag.key, flag.kind, "share", share(flag.true, flag.instances), *[NOTHING] * 4, f"{flag.instances:,}"]
        for flag in section.flags
    ]
    rows += [
        [one.key, one.kind, "values", _values(one), *[NOTHING] * 4, f"{one.instances:,}"] for one in section.categories
    ]
    heads = ["metric", "kind", "aggregate", "value", "min", "p50", "p90", "max", "instances"]
    return _table(section.application.name.upper(), heads, rows, {3, 4, 5, 6, 7, 8}, width) if rows else ""


def _value(kpi: Kpi) -> str:
    return " ".join([exact(_short(kpi.value)), *([kpi.unit] if kpi.unit else [])])


def _spread(kpi: Kpi) -> list[str]:
    return [compact(kpi.min), compact(kpi.p50), compact(kpi.p90), compact(kpi.max)]


def _values(category: Category) -> str:
    first = ", ".join(f"{one.value} {share(one.instances, category.instances)}" for one in category.values[:3])
    return first + (", …" if len(category.values) > 3 or category.other else "")


def _short(value: int | Decimal | None) -> int | Decimal | None:
    """A mean's endless digits are cut after the third; a sum has as many as were sent."""
    if isinstance(value, Decimal) and isinstance(exponent := value.as_tuple().exponent, int) and exponent < -3:
        return value.quantize(Decimal("0.001"), context=WIDE)
    return value


def _instances(report: Report, width: int) -> str:
    now = report.as_of
    descriptions = {one.key: one for one in report.metric_keys}
    glyphs = {state.word: state.glyph for state in State}
    rows = []
    for line in report.instances:
        one = line.instance
        row = Row(one)
        metrics = [
            f"{key} {_with_unit(row.leaves[key], descriptions.get(key))}"
            for key in sorted(row.leaves)
            if key not in descriptions or not descriptions[key].hidden
        ]
        rows.append(
            [
                f"{glyphs[line.state]} {line.state}",
                one.instance_id[:8],
                one.app_name,
                one.app_version,
                one.os_arch,
                one.environment,
                one.deployment_mode,
                age(one.last_seen_at, now),
                ", ".join(metrics),
            ]
        )
    heads = ["state", "instance", "application", "version", "os", "env", "mode", "seen", "metrics"]
    if not rows:
        return ""
    table = _table("INSTANCES", heads, rows, {7}, width)
    return table + (f"\n  the newest {len(rows):,}; there are more" if report.more_instances else "")


def _with_unit(value: Value, described: MetricKey | None) -> str:
    if described is None or isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value_text(value)
    return measured(value, described.unit, described.format)


def _table(title: str, heads: list[str], rows: list[list[str]], right: set[int], width: int) -> str:
    """Columns as wide as they need to be; the last ones give way where the line is too short."""
    widths = [max(cell_len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = [title]
    for row in [heads, *rows]:
        left = width - TITLE
        cells = []
        for place, text in enumerate(row):
            room = min(widths[place], left)
            if room < min(4, widths[place]):
                break
            cells.append(fit(text, room, place in right))
            left -= room + GAP
        lines.append((" " * TITLE + (" " * GAP).join(cells)).rstrip())
    return "\n".join(lines)
