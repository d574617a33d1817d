"""Instances as in the lists and in the feed, and the reader of their pages."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from shm.analytics import applications, hidden_metrics
from shm.analytics.applications import HiddenKeys
from shm.analytics.conditions import MAX_CONDITIONS, hiding_apps_of, parse_condition
from shm.analytics.instance_fields import COLUMNS, Instance, Status
from shm.analytics.scan_limiter import ScanLimiter
from shm.core import page_tokens
from shm.core.json_types import REPEATED, Metrics, Timestamp
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.db.columns import Columns
from shm.db.conditions import NO_CONDITIONS, Conditions
from shm.db.database import Database
from shm.db.statement_runner import Reader

# Bytes of metrics in one response. The metrics of 1,000 ordinary installs are an eighth of this, of large ones 64 MiB.
MAX_PAGE_BYTES = 4 * 2**20
MAX_MATCHES = 1_000  # instances that are counted whose ID begins with the same digits
UUID_DIGITS = 32
SCAN_PAGE_BYTES = 2**20  # bytes of metrics that a scan of a fleet holds at a time
SCAN_PAGE_ROWS = 1_000  # rows that a scan of a fleet holds at a time


@dataclass(frozen=True, slots=True)
class InstancePage:
    """Instances, and the feed cursor at which they are current.

    `next` and `previous` are the page tokens of the adjoining pages, if there are any. `rows_before`: how many rows are
    before the page, if they were counted.
    """

    cursor: int
    items: list[Instance]
    next: str | None = None
    previous: str | None = None
    rows_before: int | None = None


class InstanceCount(msgspec.Struct):
    """The number of instances that a filter selects."""

    instances: int


@dataclass(frozen=True, slots=True)
class IdMatch:
    """The number of instances whose ID begins with some digits, at most `MAX_MATCHES + 1`, and the first one's ID."""

    instances: int
    instance_id: str


class StoredSnapshot(msgspec.Struct):
    """A stored snapshot. `metrics` is the object as sent, `sequence` the install's number of it, if it numbers them.

    Of a single install the numbers grow with the time. Two copies of one, such as a cloned machine, use them twice.
    """

    snapshot_at: Timestamp
    received_at: Timestamp
    app_version: str
    sequence: int | None
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class SnapshotHistory:
    """Snapshots of one instance, and the page token of the next page, if there is one."""

    snapshots: list[StoredSnapshot]
    next: str | None


@dataclass(frozen=True, slots=True)
class MetricKeys:
    """`keys`: the metrics that most instances report, by key. `total`: the number of all metrics.

    `head`: the feed cursor at which both are current.
    """

    head: int
    total: int
    keys: list[str]


class InstanceConditions(msgspec.Struct, frozen=True):
    """The conditions of a list of instances, of any application."""

    q: Annotated[str, msgspec.Meta(description="A part of ID, version, environment or mode.")] | None = None
    status: Status | None = None
    version: (
        Annotated[
            str, msgspec.Meta(description="A release, in any spelling: `1.4.2` is `v1.4.2` and `1.4.2+build` too.")
        ]
        | None
    ) = None
    environment: str | None = None
    where: Annotated[
        list[str],
        msgspec.Meta(
            max_length=MAX_CONDITIONS,
            description="Conditions that all apply, such as `version>=1.4` or `metrics.mail.sent>100`.",
            extra=REPEATED,
        ),
    ] = []

    @property
    def selects_all(self) -> bool:
        """Whether the conditions select all instances."""
        parts = (self.q, self.status, self.version, self.environment)
        return not self.where and all(part is None for part in parts)

    def parameters_of(self, slug: str | None) -> dict[str, str | None]:
        """The conditions as parameters of the statements, for an application or for all."""
        return {
            "slug": slug,
            "pattern": None if self.q is None else _contains_pattern(self.q),
            "status": self.status,
            "version_rank": None if self.version is None else version_rank(self.version),
            "environment": self.environment,
        }

    def to_conditions(self, hidden_keys: HiddenKeys) -> Conditions:
        """The conditions of `where`. Raises BadRequest."""
        if not self.where:
            return NO_CONDITIONS
        hiding_apps = hiding_apps_of(hidden_keys)
        return Conditions([parse_condition(text, hiding_apps) for text in self.where])


class InstanceFilter(InstanceConditions, frozen=True):
    """The filter of a list of instances."""

    app: Annotated[str, msgspec.Meta(description="An application's slug or name.")] | None = None

    async def to_parameters(self, reader: Reader) -> dict[str, str | None]:
        """The filter as parameters of the statements."""
        return self.parameters_of(None if self.app is None else await applications.resolve_slug(reader, self.app))


async def parse_where(reader: Reader, where: list[str]) -> Conditions:
    """The conditions of the parameter `where`. Raises BadRequest."""
    return InstanceConditions(where=where).to_conditions(await applications.select_hidden_keys(reader))


class InstanceReader:
    """Reads instances from one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self.scans = ScanLimiter(settings.pool)

    async def count(self, instance_filter: InstanceFilter) -> InstanceCount:
        """The number of instances that a filter selects."""
        parameters = await instance_filter.to_parameters(self._database)
        conditions = instance_filter.to_conditions(await applications.select_hidden_keys(self._database))
        async with self.scans.slot():
            counted = await self._database.fetch_one(
                InstanceCount, "lists.count_instances", **parameters, conditions=conditions
            )
        assert counted is not None  # noqa: S101 - the statement always returns a row
        return counted

    async def scan(self, instance_filter: InstanceFilter, *, flat: bool) -> AsyncGenerator[list[Instance], None]:
        """Yields all instances by ID, each once, in its state when it is read; `flat`: with leaves instead of metrics.

        The scan holds one page of about a mebibyte. No transaction is open between two pages.
        """
        filter_parameters = await instance_filter.to_parameters(self._database)
        conditions = instance_filter.to_conditions(await applications.select_hidden_keys(self._database))
        last_id, limit = None, SCAN_PAGE_ROWS
        while True:
            parameters = {
                **filter_parameters,
                "conditions": conditions,
                "columns": Columns(COLUMNS),
                "flat": flat,
                "after_id": last_id,
                "limit": limit,
                "max_bytes": SCAN_PAGE_BYTES,
            }
            async with self.scans.slot():
                rows = await self._database.fetch(dict, "lists.select_by_id", **parameters)
            if not rows:
                return
            last_id, available = rows[-1]["instance_id"], rows[0]["available"]
            hidden_keys = await applications.select_hidden_keys(self._database)
            yield [instance_from_row(row, hidden_keys) for row in rows]
            if len(rows) == available < limit:
                return
            # PostgreSQL converts all requested rows to text before it applies
            # the limit of bytes: if few fit, few are requested
            limit = min(SCAN_PAGE_ROWS, 2 * len(rows))

    async def list_metric_keys(self, app: str | None, limit: int) -> MetricKeys:
        """The metrics that most instances report, of one application or of all."""
        slug = None if app is None else await applications.resolve_slug(self._database, app)
        keys = await self._database.fetch_one(MetricKeys, "lists.select_metric_keys", slug=slug, limit=limit)
        assert keys is not None  # noqa: S101 - the statement always returns a row
        return keys

    async def list_snapshots(self, instance_id: str, after: str | None, limit: int) -> SnapshotHistory | None:
        """Up to `limit` snapshots of an instance after a page token, newest first; None if the instance does not exist.

        The page is shorter if it reaches `MAX_PAGE_BYTES`. Raises BadRequest.
        """
        rows = await self._database.fetch(
            dict,
            "lists.select_snapshots",
            instance_id=instance_id,
            after=None if after is None else page_tokens.parse_timestamp(after),
            limit=limit,
            max_bytes=MAX_PAGE_BYTES,
        )
        if not rows:
            return None
        rows = [row for row in rows if row["row"] is not None]
        snapshots = [
            StoredSnapshot(row["snapshot_at"], row["received_at"], row["app_version"], row["sequence"], row["metrics"])
            for row in rows
        ]
        more = bool(rows) and rows[0]["available"] > len(rows)
        return SnapshotHistory(snapshots, page_tokens.format_timestamp(snapshots[-1].snapshot_at) if more else None)

    async def find(self, digits: str) -> IdMatch:
        """The instances whose ID begins with these 1 to 32 hex digits."""
        found = await self._database.fetch_one(
            IdMatch,
            "instances.find_by_prefix",
            first_id=digits.ljust(UUID_DIGITS, "0"),
            last_id=digits.ljust(UUID_DIGITS, "f"),
            limit=MAX_MATCHES + 1,
        )
        assert found is not None  # noqa: S101 - the statement always returns a row
        return found

    async def get(self, instance_id: str) -> InstancePage:
        """A page with the instance of this ID, or an empty page."""
        rows = await self._database.fetch(dict, "instances.select_item", instance_id=instance_id)
        return _page(rows, await applications.select_hidden_keys(self._database)) if rows else InstancePage(0, [])


def _page(rows: list[dict[str, Any]], hidden_keys: HiddenKeys) -> InstancePage:
    items = [instance_from_row(row, hidden_keys) for row in rows if row["instance_id"] is not None]
    return InstancePage(rows[0]["head"], items)


def instance_from_row(row: Mapping[str, Any], hidden_keys: HiddenKeys) -> Instance:
    """The instance of a row of `instance_items`."""
    instance = Instance(**{name: row[name] for name in Instance.__struct_fields__})
    if instance.app_slug in hidden_keys:
        instance.metrics = hidden_metrics.remove_hidden(instance.metrics, hidden_keys[instance.app_slug])
    return instance


def _contains_pattern(part: str) -> str:
    """An ILIKE pattern that matches texts that contain `part`."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
