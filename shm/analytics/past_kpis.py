"""KPIs as of a midnight of the past, from the series, at a cost that depends on neither the fleet nor the history.

The series has sums and counts of numbers and booleans. Percentiles are computed from the raw snapshots, and only for
metrics whose value needs them. Nothing tells which instances were counted, or which categories there were.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from shm.analytics import applications
from shm.analytics.applications import AppConfig
from shm.analytics.kpis import MAX_KEYS, ApplicationKpis, describe_visible, to_flag, to_kpi
from shm.analytics.past_distributions import read_past_distributions
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core import aggregates, metric_keys
from shm.core.aggregates import NO_DISTRIBUTION
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_ROWS = 2 * MAX_KEYS + 1  # a key may have been a number for some and a boolean for others


@dataclass(frozen=True, slots=True)
class _Row:
    metric_type: str
    key: str
    total: Decimal
    instances: Decimal


class PastKpiReader:
    """Reads KPIs of the past from one database."""

    def __init__(self, database: Database, cache: SingleFlightCache, settings: Settings) -> None:
        self._database = database
        self._cache = cache
        self._settings = settings

    async def read(self, slug: str, at: datetime) -> tuple[int, ApplicationKpis]:
        """The KPIs of an application at a midnight, and the feed cursor at which they were read. Raises NotFound."""

        async def read(reader: Reader) -> tuple[int, AppConfig, list[_Row]]:
            config = await applications.read_config(reader, slug)
            rows = await reader.fetch(_Row, "kpis.select_past", app=slug, at=at, limit=MAX_ROWS)
            cursor = await reader.fetch_value(int, "feed.select_head")
            return cursor or 0, config, rows

        cursor, config, rows = await self._database.read_consistently(read)
        numbers = describe_visible([row for row in rows if row.metric_type == "number"], config)
        flags = describe_visible([row for row in rows if row.metric_type == "boolean"], config)
        distributions = await self._distributions(slug, [description for description, _ in numbers], at)
        return cursor, ApplicationKpis(
            app=slug,
            name=config.name,
            as_of=at,
            spread_as_of=at if distributions else None,
            active_window_s=int(self._settings.active_window.total_seconds()),
            instances=None,
            reporting=sum(int(row.instances) for row in rows if row.metric_type == "reporting"),
            kpis=[
                to_kpi(description, row.total, int(row.instances), distributions.get(row.key, NO_DISTRIBUTION))
                for description, row in numbers
            ],
            flags=[to_flag(description, row.total, int(row.instances)) for description, row in flags],
            categories=None,
            keys=None,
        )

    async def _distributions(
        self, slug: str, numbers: list[metric_keys.Description], at: datetime
    ) -> dict[str, aggregates.Distribution]:
        """The distributions of the metrics whose value needs one, by key."""
        keys = [number.key for number in numbers if aggregates.needs_distribution(number.aggregate)]
        if not keys:
            return {}
        found = await read_past_distributions(self._database, self._cache, slug, keys, [at])
        return {distribution.key: distribution for distribution in found}
