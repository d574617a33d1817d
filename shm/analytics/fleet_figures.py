"""The figures of the fleet for monitoring systems: counts, versions and metrics of each application, from the totals.

The number of figures is bounded, whatever installs send: a monitoring system stores a series for each.
"""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from shm.analytics import applications, counts, series
from shm.analytics.counts import InstanceCounts
from shm.analytics.kpis import KpiReader
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.analytics.versions import MAX_VERSIONS, choose_spellings
from shm.core.errors import NotFound
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_APPLICATIONS = 100  # those with the most active installs
MAX_RELEASES = 20  # of an application, the most frequent ones; `OTHER` combines the rest
MAX_KEYS = 50  # metrics of an application
OTHER = "other"


@dataclass(frozen=True, slots=True)
class AppFigures:
    """An application's figures. `releases`: counts of instances with a current snapshot, by version.

    `metrics`: the KPI of each number, and of each boolean the number of instances that report true.
    """

    slug: str
    instances: InstanceCounts
    releases: dict[str, int]
    metrics: dict[str, Decimal]


class FleetFigureReader:
    """Reads the figures of one database's applications."""

    def __init__(self, database: Database, kpis: KpiReader) -> None:
        self._database = database
        self._kpis = kpis
        self._cache = SingleFlightCache(database.clock)

    async def read(self, keys: Collection[str] | None) -> list[AppFigures]:
        """The figures of all applications, at most a minute old, with these metrics; None: with the public ones."""

        async def compute() -> list[AppFigures]:
            return await self._database.read_consistently(lambda reader: self._read(reader, keys))

        cache_key = None if keys is None else frozenset(keys)
        return (await self._cache.get(("fleet", cache_key), compute))[1]

    async def _read(self, reader: Reader, keys: Collection[str] | None) -> list[AppFigures]:
        by_slug = counts.sum_by_application(await counts.read_tallies(reader))
        largest = sorted(by_slug, key=lambda slug: (-by_slug[slug].active, slug))[:MAX_APPLICATIONS]
        return [
            AppFigures(
                slug,
                by_slug[slug],
                _count_releases(await series.read_current_versions(reader, slug, MAX_VERSIONS)),
                await self._read_metrics(reader, slug, keys),
            )
            for slug in sorted(largest)
        ]

    async def _read_metrics(self, reader: Reader, slug: str, keys: Collection[str] | None) -> dict[str, Decimal]:
        """The values of metrics that are not hidden and have one. None for an application without a proven install."""
        try:
            wanted = await applications.read_public_metrics(reader, slug) if keys is None else frozenset(keys)
            if not wanted:
                return {}
            _, kpis = await self._kpis.read(reader, slug)
        except NotFound:
            return {}
        values = {flag.key: Decimal(flag.true) for flag in kpis.flags if flag.key in wanted}
        values |= {kpi.key: kpi.value for kpi in kpis.kpis if kpi.key in wanted and kpi.value is not None}
        return {key: values[key] for key in sorted(values)[:MAX_KEYS]}


def _count_releases(rows: list[series.CurrentValue]) -> dict[str, int]:
    """Instances by release, in its most frequent spelling."""
    installs = {row.value: int(row.instances) for row in rows if row.metric_type == "version"}
    by_release: dict[str, int] = {}
    for version, release in choose_spellings(installs, installs).items():
        by_release[release] = by_release.get(release, 0) + installs[version]
    frequent = sorted(by_release, key=lambda release: (-by_release[release], release))
    counted = {release: by_release[release] for release in frequent[:MAX_RELEASES]}
    rest = sum(int(row.instances) for row in rows) - sum(counted.values())
    return counted | ({OTHER: counted.get(OTHER, 0) + rest} if rest else {})
