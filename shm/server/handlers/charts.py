"""The admin API's charts and breakdowns of applications: `/api/v1/admin/`."""

from datetime import date
from typing import Annotated

import msgspec

from shm.analytics import (
    breakdown,
    charts,
    histogram,
    kpis,
    lifecycle,
    metric_descriptions,
    metric_suggestions,
    versions,
)
from shm.analytics.instance_fields import VersionRank as Rank
from shm.analytics.instances import InstanceConditions
from shm.analytics.periods import Period, parse_past
from shm.auth.tokens import Role
from shm.core.errors import BadRequest, NotFound
from shm.core.json_types import Text
from shm.core.releases import version_rank
from shm.server.handlers.base import Handler
from shm.server.http.operations import App, Slug, operation
from shm.server.http.params import LENIENT

MAX_VERSION = 1_024  # characters: more than an install can send under any setting

Keys = Annotated[
    list[Text],
    msgspec.Meta(
        description="Metric keys, separated by commas or in several parameters; in double quotes with a comma in them. "
        "Default: the most common ones."
    ),
]
At = Annotated[
    date, msgspec.Meta(description="A day: as of its beginning, at midnight in UTC, with a period of 30d or more.")
]
PeriodParameter = Annotated[Period, msgspec.Meta(description="The period up to now.")]


class PeriodQuery(msgspec.Struct, frozen=True):
    """The query of a chart."""

    period: PeriodParameter = "30d"


class PastPeriodQuery(PeriodQuery, frozen=True):
    """The query of a chart that may end in the past."""

    at: At | None = None


class MetricsQuery(msgspec.Struct, frozen=True):
    """The query of `GET metrics/{app}`."""

    period: Annotated[Period, msgspec.Meta(description="The period up to now.", extra=LENIENT)] = "24h"
    keys: Keys | None = None
    at: At | None = None
    nulls: Annotated[
        bool,
        msgspec.Meta(description="false: without the times at which one of the metrics has no value."),
    ] = True


class VersionRankQuery(msgspec.Struct, frozen=True):
    """The query of `GET version-rank`."""

    version: Annotated[str, msgspec.Meta(max_length=MAX_VERSION, description="Any version, used or not.")]


class RankedVersion(msgspec.Struct):
    """A version with its rank."""

    version: str
    version_rank: Rank


class BreakdownQuery(msgspec.Struct, frozen=True):
    """The query of `GET applications/{slug}/breakdown`."""

    by: Annotated[
        Text,
        msgspec.Meta(
            description="version, os_arch, environment, deployment_mode, or the key of a string or boolean metric. "
            "`metrics.` before a key distinguishes it from these.",
        ),
    ]
    metric: Annotated[Text, msgspec.Meta(description="A numeric metric to aggregate for each value.")] | None = None
    spread: Annotated[bool, msgspec.Meta(description="With min, p50, p90 and max of the metric for each value.")] = (
        False
    )
    counted: Annotated[bool, msgspec.Meta(description="Only over the counted instances.")] = False


class HistogramQuery(InstanceConditions, frozen=True, kw_only=True):
    """The query of `GET applications/{slug}/histogram`."""

    metric: Annotated[Text, msgspec.Meta(description="A numeric metric.")]
    counted: Annotated[bool, msgspec.Meta(description="Only over the counted instances.")] = False


class MetricKeysQuery(msgspec.Struct, frozen=True):
    """The query of `GET metric-keys`."""

    app: (
        Annotated[Text, msgspec.Meta(description="An application's slug or name. Default: all applications.")] | None
    ) = None
    keys: (
        Annotated[
            list[Text],
            msgspec.Meta(
                description="Metric keys, separated by commas or in several parameters; in double quotes with a "
                "comma in them. Default: common ones and those with an override."
            ),
        ]
        | None
    ) = None


class MetricKeys(Handler):
    """`GET metric-keys`."""

    @operation("listMetricKeys", Role.VIEWER, refuses=[NotFound])
    async def get(self, query: MetricKeysQuery) -> list[metric_descriptions.MetricKey]:
        """Descriptions of metric keys: the label, kind, aggregate, unit and format of each.

        They follow from the words of the key and the vendor's overrides. Every requested key is described, including
        one whose values are shown and never aggregated. Over all applications, an override applies if all applications
        with the key agree on it.
        """
        keys = None if query.keys is None else sorted(set(query.keys))
        if keys is not None and len(keys) > metric_descriptions.MAX_KEYS:
            raise BadRequest("bad_parameter", f"keys has more than {metric_descriptions.MAX_KEYS} metrics.")
        return await metric_descriptions.read_metric_keys(self.services.database, query.app, keys)


class MetricSuggestions(Handler):
    """`GET applications/{slug}/suggestions`."""

    @operation("listMetricSuggestions", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug) -> list[metric_suggestions.MetricSuggestion]:
        """The suggestions of the application's developer for its metrics that are not in effect.

        Installs send it. It has no effect before an admin makes it an override.
        """
        return await self.services.applications.read_by_slug(
            slug, lambda found: metric_suggestions.read_suggestions(self.services.database, found)
        )


class Metrics(Handler):
    """`GET metrics/{app}`."""

    @operation("getMetricSeries", Role.VIEWER, refuses=[NotFound])
    async def get(self, app: App, query: MetricsQuery) -> charts.MetricSeries:
        """An application's metrics over a period: the values of the KPIs at each time, the last one now."""
        keys = None if query.keys is None else sorted(set(query.keys))
        if keys is not None and len(keys) > kpis.MAX_KEYS:
            raise BadRequest("bad_parameter", f"keys has more than {kpis.MAX_KEYS} metrics.")
        at = parse_past(query.at, query.period, self.services.database.clock.now())
        chart = await self.services.charts.read_series(app, query.period, keys, at)
        return chart if query.nulls else charts.without_nulls(chart)


class Versions(Handler):
    """`GET applications/{slug}/versions`."""

    @operation("getVersions", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug, query: PastPeriodQuery) -> versions.Versions:
        """Instances by version over a period, the speed of adoption of new versions, and outdated versions."""
        services = self.services
        at = parse_past(query.at, query.period, services.database.clock.now())
        return await services.applications.read_by_slug(
            slug, lambda found: services.versions.read_versions(found, query.period, at)
        )


class VersionRank(Handler):
    """`GET version-rank`."""

    @operation("getVersionRank", Role.VIEWER)
    async def get(self, query: VersionRankQuery) -> RankedVersion:
        """The rank of any version, for comparison with the `version_rank` of instances."""
        return RankedVersion(query.version, version_rank(query.version))


class Lifecycle(Handler):
    """`GET applications/{slug}/lifecycle`."""

    @operation("getLifecycle", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug, query: PeriodQuery) -> lifecycle.Lifecycle:
        """New, active, lost and returned instances by day, and the survival of each week's new instances."""
        services = self.services
        return await services.applications.read_by_slug(
            slug,
            lambda found: lifecycle.read_lifecycle(services.database, services.result_cache, found, query.period),
        )


class Breakdown(Handler):
    """`GET applications/{slug}/breakdown`."""

    @operation("getBreakdown", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug, query: BreakdownQuery) -> breakdown.Breakdown:
        """Instances by the values of a column or metric, and an aggregate of another metric for each value.

        The instances are those of the KPIs: unrevoked ones whose current snapshot is newer than the active window.
        """
        services = self.services
        return await services.applications.read_by_slug(
            slug,
            lambda found: breakdown.read_breakdown(
                *(services.database, services.result_cache, found, query.by, query.metric),
                counted_only=query.counted,
                with_spread=query.spread,
            ),
        )


class Histogram(Handler):
    """`GET applications/{slug}/histogram`."""

    @operation("getHistogram", Role.VIEWER, refuses=[NotFound])
    async def get(self, slug: Slug, query: HistogramQuery) -> histogram.Histogram:
        """Instances by the size of their value of a metric, and its percentiles, over all or those of a filter.

        The instances are those of the KPIs: unrevoked ones whose current snapshot is newer than the active window.
        """
        services = self.services
        return await services.applications.read_by_slug(
            slug,
            lambda found: histogram.read_histogram(
                *(services.database, services.result_cache, services.instances.scans, found, query.metric, query),
                counted_only=query.counted,
            ),
        )
