"""One instance in full: identity, metrics with their history and the fleet's median, versions, decisions, JSON."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec

from shm_client import Category, Client, Flag, Instance, Kpi, Kpis, RefusedError, UnknownApplicationError
from shm_client.cancelling import result_of
from shm_client.figures import AuditEntry, StoredSnapshot
from shm_client.model import Value, flatten_metrics
from shm_tui.model.place import Place
from shm_tui.model.row import format_value
from shm_tui.model.state import Clock, state_of
from shm_tui.model.views.base import Frame, Page, PageRow, View, to_float
from shm_tui.text.charts import sparkline
from shm_tui.text.formatting import UNKNOWN, age, compact, plural, timestamp
from shm_tui.text.json_text import format_json
from shm_tui.text.lines import Line, TableColumn, facts, make_table

MAX_SNAPSHOTS = 1_000  # the server's maximum: six weeks of hourly reports
MAX_AUDIT = 1_000  # the newest changes, in which those of the instance are looked for
SHORT_ID = 8  # digits of an ID in the audit trail
TREND_WIDTH = 24

LENGTHS = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30), "3m": timedelta(days=90)}

COLUMNS = (
    TableColumn("METRIC", max_width=36),
    TableColumn("VALUE", align_right=True, max_width=24),
    TableColumn("HISTORY", rank=2),
    TableColumn("FLEET P50", align_right=True, rank=1),
    TableColumn("RANK", rank=3),
)


class InstanceDocument(msgspec.Struct):
    """An instance, its snapshots in the range, the newest first, and the decisions on it."""

    instance: Instance
    snapshots: list[StoredSnapshot]
    decisions: list[AuditEntry]


class InstanceView(View):
    """One instance."""

    def __init__(self) -> None:
        self._instance: Instance | None = None
        self._snapshots: list[StoredSnapshot] = []
        self._histories: dict[str, list[float | None]] = {}  # the numbers of each metric, the oldest first
        self._decisions: list[AuditEntry] | None = None  # None: the token may not read them
        self._active_window_s = 0

    @property
    def has_data(self) -> bool:
        """Whether the instance has been loaded."""
        return self._instance is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the instance with its snapshots, the KPIs of its application, and the audit trail."""
        instance = await client.instance(place.argument(0) or "")
        snapshots, self.kpis, self._decisions = await result_of(
            asyncio.gather(
                client.snapshots(instance.instance_id, MAX_SNAPSHOTS),
                _kpis(client, instance.app_slug),
                _decisions(client, instance.instance_id[:SHORT_ID]),
            )
        )
        length = LENGTHS.get(place.range)
        start = None if length is None else client.server_time() - length
        self._snapshots = [each for each in snapshots if start is None or each.snapshot_at >= start]
        self._histories = _histories(self._snapshots)
        self._instance, self._active_window_s = instance, self.kpis.active_window_s

    def document(self) -> object:
        """The instance, its snapshots and the decisions."""
        if self._instance is None:
            return None
        return InstanceDocument(self._instance, self._snapshots, self._decisions or [])

    @property
    def instance(self) -> Instance | None:
        """The instance."""
        return self._instance

    def page(self, frame: Frame) -> Page:
        """Identity, a row for each metric, the versions, the decisions, and the JSON of the current snapshot."""
        instance = self._instance
        if instance is None:
            return Page([], [])
        state = state_of(instance, Clock(frame.now, self._active_window_s))
        title = facts(
            instance.instance_id,
            [f"{state.glyph} {state.label}", instance.app_name, frame.place.range],
            frame.width,
        )
        names = [instance.app_version, instance.environment, instance.deployment_mode, instance.os_arch]
        identity: Line = ((" " + "  ·  ".join(name for name in names if name), "value"),)
        times: Line = (
            (f" first seen {timestamp(instance.first_seen_at)}", "name"),
            (f"  ·  last seen {age(instance.last_seen_at, frame.now)} ago", "name"),
            (f"  ·  {_snapshot_count(len(self._snapshots), frame.place.range)}", "name"),
        )
        entries: list[Kpi | Flag | Category] = [*self.kpis.kpis, *self.kpis.flags, *self.kpis.categories]
        system = {entry.key for entry in entries if entry.kind == "system"}
        metrics = sorted(flatten_metrics(instance.metrics), key=lambda metric: (metric[0] in system, metric[0]))
        table = make_table(COLUMNS, [self._cells(key, value, frame) for key, value in metrics], frame.width - 2)
        kpi_keys = {kpi.key for kpi in self.kpis.kpis}
        rows = [
            PageRow(
                f"metric {key}",
                ((" ", ""), *line),
                Place(instance.app_slug, "metric", (key,), range=frame.place.range, at=frame.place.at)
                if key in kpi_keys
                else None,
            )
            for (key, _), line in zip(metrics, table.rows, strict=True)
        ]
        rows += _section("VERSIONS", self._version_lines())
        rows += _section("DECISIONS", self._decision_lines())
        rows += _section("JSON", [((f"  {text}", "name"),) for text in format_json(instance.metrics).splitlines()])
        empty = "" if metrics else "It has not sent any metric."
        return Page([title, identity, times, (), ((" ", ""), *table.head)], rows, empty="" if rows else empty)

    def _cells(self, key: str, value: Value, frame: Frame) -> list[Line]:
        kpi = next((kpi for kpi in self.kpis.kpis if kpi.key == key), None)
        history = self._histories.get(key)
        trend = sparkline(history, TREND_WIDTH, frame.glyphs) if history else ""
        return [
            ((key, "name"),),
            ((format_value(value), "value"),),
            ((trend, "chart"),),
            ((compact(kpi.p50) if kpi else UNKNOWN, "name"),),
            ((_rank(value, kpi), "name"),),
        ]

    def _version_lines(self) -> list[Line]:
        """The versions that it went through, the newest first, each with its first snapshot in the range."""
        lines: list[Line] = []
        previous = None
        for snapshot in reversed(self._snapshots):
            if snapshot.app_version and snapshot.app_version != previous:
                previous = snapshot.app_version
                lines.append(((f"  {timestamp(snapshot.snapshot_at)}  ", "name"), (previous, "value")))
        return lines[::-1]

    def _decision_lines(self) -> list[Line]:
        if self._decisions is None:
            return [(("  only an admin's token may read them", "name"),)]
        if not self._decisions:
            return [(("  none within a year", "name"),)]
        return [
            ((f"  {timestamp(entry.at)}  ", "name"), (entry.action.replace("_", " "), "value"))
            for entry in self._decisions
        ]


def _snapshot_count(count: int, period: str) -> str:
    """How many snapshots the history is of. There may be more than the server sends at once."""
    if count >= MAX_SNAPSHOTS:
        return f"the newest {count:,} snapshots"
    return f"{plural(count, 'snapshot')} in {period}"


def _section(title: str, lines: list[Line]) -> list[PageRow]:
    """A heading and its lines as rows, so that the cursor scrolls through them."""
    if not lines:
        return []
    rows = [PageRow(f"{title} blank", ()), PageRow(title, ((f" {title}", "head"),))]
    return [*rows, *(PageRow(f"{title} {number}", line) for number, line in enumerate(lines))]


async def _kpis(client: Client, slug: str) -> Kpis:
    try:
        return await client.kpis(slug)
    except UnknownApplicationError:  # nothing has been reported yet
        return Kpis(slug)


async def _decisions(client: Client, short_id: str) -> list[AuditEntry] | None:
    try:
        entries = await client.audit(MAX_AUDIT)
    except RefusedError:
        return None
    return [entry for entry in entries if entry.target == short_id]


def _histories(snapshots: list[StoredSnapshot]) -> dict[str, list[float | None]]:
    histories: dict[str, list[float | None]] = {}
    for index, snapshot in enumerate(reversed(snapshots)):
        for key, value in flatten_metrics(snapshot.metrics):
            if (number := _number(value)) is not None:
                histories.setdefault(key, [None] * len(snapshots))[index] = number
    return histories


def _number(value: Value) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | Decimal) else to_float(value)


def _rank(value: Value, kpi: Kpi | None) -> str:
    """Where the value is in the fleet's distribution."""
    number = _number(value)
    if kpi is None or number is None or kpi.p50 is None or kpi.p90 is None:
        return ""
    if number > kpi.p90:
        return "above p90"
    return "above p50" if number > kpi.p50 else "up to p50"
