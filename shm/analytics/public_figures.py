"""The figures of an application that badges show to everybody. They come from totals, whatever the fleet's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from shm.analytics import applications, series
from shm.analytics.kpis import KpiReader
from shm.analytics.single_flight_cache import SingleFlightCache
from shm.analytics.versions import MAX_VERSIONS, choose_spellings
from shm.core.releases import version_rank
from shm.db.database import Database
from shm.db.statement_runner import Reader


@dataclass(frozen=True, slots=True)
class PublicMetric:
    """The KPI of a number, or how many instances report true. `instances`: how many report the metric."""

    value: Decimal | None
    instances: int


@dataclass(frozen=True, slots=True)
class PublicFigures:
    """The figures of an application for badges. `instances`: the counted ones. `metrics`: those that the vendor lists.

    `version`: the release that most instances have, None if there is none; `version_instances`: how many that are.
    """

    instances: int
    version: str | None
    version_instances: int
    metrics: Mapping[str, PublicMetric]


class PublicFigureReader:
    """Reads the public figures of one database's applications."""

    def __init__(self, database: Database, kpis: KpiReader) -> None:
        self._database = database
        self._kpis = kpis
        self._cache = SingleFlightCache(database.clock)  # its own, so that strangers delay no other computation

    async def read(self, slug: str) -> PublicFigures:
        """The figures of an application, at most a minute old. Raises NotFound."""
        await applications.read_config(self._database, slug)  # NotFound does not wait for other computations

        async def compute() -> PublicFigures:
            return await self._database.read_consistently(lambda reader: self._read(reader, slug))

        return (await self._cache.get(slug, compute))[1]

    async def _read(self, reader: Reader, slug: str) -> PublicFigures:
        public = await applications.read_public_metrics(reader, slug)
        _, kpis = await self._kpis.read(reader, slug)
        assert kpis.instances is not None  # noqa: S101 - only KPIs of the past have none
        metrics = {kpi.key: PublicMetric(kpi.value, kpi.instances) for kpi in kpis.kpis}
        metrics = {flag.key: PublicMetric(Decimal(flag.true), flag.instances) for flag in kpis.flags} | metrics
        return PublicFigures(
            kpis.instances.counted,
            *_most_used(await series.read_current_versions(reader, slug, MAX_VERSIONS)),
            {key: metric for key, metric in metrics.items() if key in public},
        )


def _most_used(rows: list[series.CurrentValue]) -> tuple[str | None, int]:
    """The release that most instances have, in its most frequent spelling, and their number; of equals the latest."""
    installs = {row.value: int(row.instances) for row in rows if row.metric_type == "version"}
    by_release: dict[str, int] = {}
    for version, release in choose_spellings(installs, installs).items():
        by_release[release] = by_release.get(release, 0) + installs[version]
    most_used = max(by_release, key=lambda release: (by_release[release], version_rank(release)), default=None)
    return most_used, by_release[most_used] if most_used is not None else 0
