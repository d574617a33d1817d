"""The counts and aggregates over all applications: `GET stats`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import msgspec

from shm.analytics import counts
from shm.analytics.disk_forecast import DiskForecast, forecast_disk
from shm.analytics.kpis import MAX_KEYS
from shm.core import aggregates, metric_keys
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_APPLICATIONS = 1_000  # in per_app_counts


class Stats(msgspec.Struct):
    """The body of `GET stats`: the original's four fields first.

    `global_metrics`: the aggregate of each number over all applications except those that hide it. A key is omitted if
    applications disagree on its aggregate, or if the aggregate requires the distribution of the values.
    `activation`: whether a new install waits for approval at present: SHM_ACTIVATION, or `manual` in an hour with more
    than SHM_MAX_NEW_INSTALLS. `new_this_week`: first seen in the current hour or in the 168 hours before it.
    """

    total_instances: int
    active_instances: int
    global_metrics: dict[str, Decimal]
    per_app_counts: dict[str, int]
    daily_active: int
    weekly_active: int
    monthly_active: int
    counted_instances: int
    excluded_instances: int
    pending_instances: int
    revoked_instances: int
    unproven_instances: int
    unreported_instances: int
    new_this_week: int
    active_window_s: int
    activation: Literal["tofu", "manual"]
    disk: DiskForecast


@dataclass(frozen=True, slots=True)
class _ApplicationCount:
    name: str
    instances: int


@dataclass(frozen=True, slots=True)
class _GlobalMetric:
    key: str
    total: Decimal
    instances: Decimal
    overrides: msgspec.Raw


_overrides = msgspec.json.Decoder(list[metric_keys.MetricOverride])


async def read_stats(database: Database, settings: Settings) -> Stats:
    """Reads the statistics from the tallies. All values but those of the disk are of one moment.

    The number of tallies depends on the applications and keys, not on the instances.
    """
    disk = await forecast_disk(database, settings)
    return await database.read_consistently(lambda reader: _read(reader, settings, disk))


async def _read(reader: Reader, settings: Settings, disk: DiskForecast) -> Stats:
    tallies = await counts.read_tallies(reader)
    totals = counts.sum_tallies(tallies)
    new = await reader.fetch_value(int, "kpis.count_new_this_week")
    new_this_hour = await reader.fetch_value(int, "kpis.count_new_this_hour") or 0
    is_limited = settings.ratelimit_enabled and new_this_hour >= settings.max_new_installs
    per_app = await reader.fetch(_ApplicationCount, "kpis.count_by_application", limit=MAX_APPLICATIONS)
    sums = await reader.fetch(_GlobalMetric, "kpis.sum_global_metrics", app=None, max_keys=MAX_KEYS)
    return Stats(
        total_instances=totals.total,
        active_instances=totals.active,
        global_metrics={
            row.key: value
            for row in sorted(sums, key=lambda row: row.key)
            if (value := _aggregate_value(row)) is not None
        },
        per_app_counts={row.name: row.instances for row in per_app},
        daily_active=counts.count_seen_within(tallies, counts.DAY),
        weekly_active=counts.count_seen_within(tallies, counts.WEEK),
        monthly_active=counts.count_seen_within(tallies, counts.MONTH),
        counted_instances=totals.counted,
        excluded_instances=totals.excluded,
        pending_instances=totals.pending,
        revoked_instances=totals.revoked,
        unproven_instances=totals.unproven,
        unreported_instances=totals.unreported,
        new_this_week=new or 0,
        active_window_s=int(settings.active_window.total_seconds()),
        activation="manual" if settings.activation == "manual" or is_limited else "tofu",
        disk=disk,
    )


def _aggregate_value(row: _GlobalMetric) -> Decimal | None:
    aggregate = metric_keys.common_aggregate(row.key, _overrides.decode(row.overrides))
    return None if aggregate is None else aggregates.aggregate_value(aggregate, row.total, int(row.instances))
