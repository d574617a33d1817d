"""KPIs over the instances of an application that a filter selects, exact and of one moment.

There are no stored sums for a filter, so every metric of the instances that match is read: the cost grows with their
number. Scans take their turns (`shm.analytics.scan_limiter`) and end after `MAX_SCAN_S` with an error. Percentiles
require a sort as well; beyond `MAX_SORTED_INSTANCES` only those that a KPI's value needs are computed.
"""

from dataclasses import dataclass

from shm.analytics import applications
from shm.analytics.counts import InstanceCounts
from shm.analytics.instances import InstanceConditions
from shm.analytics.kpis import MAX_KEYS, MAX_VALUES, ApplicationKpis, KpiRow, KpiRows
from shm.analytics.percentiles import MetricDistribution
from shm.analytics.scan_limiter import MAX_SCAN_S, ScanLimiter
from shm.core import aggregates, metric_keys
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.statement_runner import Reader

MAX_SORTED_INSTANCES = 20_000  # whose numbers are all sorted within a request: some tenths of a second


@dataclass(frozen=True, slots=True)
class _Counts:
    total: int
    active: int
    pending: int
    revoked: int
    counted: int
    unproven: int
    reporting: int
    counted_reporting: int

    def to_instances(self) -> InstanceCounts:
        """The counts as in a response."""
        excluded, unreported = self.active - self.counted, max(0, self.active - self.reporting)
        return InstanceCounts(
            self.total, self.active, self.pending, self.revoked, self.counted, excluded, self.unproven, unreported
        )


class FilteredKpiReader:
    """Reads KPIs over a filter from one database."""

    def __init__(self, database: Database, scans: ScanLimiter, settings: Settings) -> None:
        self._database = database
        self._scans = scans
        self._settings = settings

    async def read(
        self, slug: str, conditions: InstanceConditions, *, counted_only: bool
    ) -> tuple[int, ApplicationKpis]:
        """The KPIs over the instances that match, and the feed cursor at which they are current.

        Raises NotFound, BadRequest, and QueryTooSlow if the scan takes too long.
        """

        async def read(reader: Reader) -> tuple[int, ApplicationKpis]:
            config = await applications.read_config(reader, slug)
            as_of = self._database.clock.now()
            parameters: dict[str, object] = {
                **conditions.parameters_of(slug),
                "conditions": conditions.to_conditions(await applications.select_hidden_keys(reader)),
            }
            over = {**parameters, "counted_only": counted_only}
            matching = await reader.fetch_one(_Counts, "kpis.count_filtered", **parameters)
            assert matching is not None  # noqa: S101 - the statement always returns a row
            rows = KpiRows(
                config,
                await reader.fetch(
                    KpiRow, "kpis.select_filtered", app=slug, max_keys=MAX_KEYS, max_values=MAX_VALUES, **over
                ),
            )
            reporting = matching.counted_reporting if counted_only else matching.reporting
            keys = keys_to_sort(rows, reporting)
            distributions = (
                await reader.fetch(MetricDistribution, "kpis.select_filtered_distributions", keys=keys, **over)
                if keys
                else []
            )
            by_key = {distribution.key: distribution for distribution in distributions}
            return rows.cursor, rows.to_response(by_key, matching.to_instances(), reporting, as_of, self._settings)

        async with self._scans.slot():
            return await self._database.read_consistently(read, MAX_SCAN_S)


def keys_to_sort(rows: KpiRows, reporting: int) -> list[str]:
    """The numbers whose distributions are computed: all of a small selection, else those whose value needs one."""
    keys = [row.key for row in rows.numbers()]
    if reporting <= MAX_SORTED_INSTANCES:
        return keys
    described = {key: metric_keys.describe(key, rows.config.override_of(key)) for key in keys}
    return [key for key in keys if aggregates.needs_distribution(described[key].aggregate)]
