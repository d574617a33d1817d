"""The distributions of metrics at times in the past, from the raw snapshots, because the series has sums only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from shm.analytics.single_flight_cache import SingleFlightCache
from shm.core.errors import QueryTooSlow
from shm.db.database import Database


@dataclass(frozen=True, slots=True)
class PastDistribution:
    """The distribution of a metric over the snapshots that were current at a time."""

    at: datetime
    key: str
    min: Decimal
    p50: Decimal
    p90: Decimal
    max: Decimal


async def read_past_distributions(
    database: Database, cache: SingleFlightCache, slug: str, keys: Sequence[str], points: Sequence[datetime]
) -> list[PastDistribution]:
    """The distributions at ascending points, at most a minute old.

    None where no instance reported the metric, none before all raw snapshots of that time are there, and none at all if
    computing takes too long.
    """

    async def compute() -> list[PastDistribution]:
        return await database.fetch(
            PastDistribution, "series.select_past_distributions", app=slug, keys=list(keys), points=list(points)
        )

    try:
        return (await cache.get(("past_distributions", slug, *points, *keys), compute))[1]
    except QueryTooSlow:
        return []
