"""`GET /metrics`, the server's own metrics, and `GET /metrics/fleet`, those of the fleet, for monitoring systems."""

from typing import Annotated

import msgspec

from shm.analytics.fleet_figures import MAX_KEYS
from shm.auth.tokens import Role
from shm.core.errors import BadRequest
from shm.server.fleet_metrics import fleet_samples
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation
from shm.server.prometheus import CONTENT_TYPE, render_samples


class PrometheusMetrics(Handler):
    """`GET /metrics`. It requires a viewer's token unless SHM_METRICS_PUBLIC is set."""

    async def authorize(self, required_role: Role) -> None:
        """Skips the check if SHM_METRICS_PUBLIC is set. The request then needs no database."""
        if not self.services.settings.metrics_public:
            await super().authorize(required_role)

    @operation("getServerMetrics", Role.VIEWER, media_types=[CONTENT_TYPE])
    async def get(self) -> bytes:
        """The server's own metrics in the text format of Prometheus."""
        self.services.sampler.sample()
        return self.services.metrics_exporter.text()


class FleetMetricsQuery(msgspec.Struct, frozen=True):
    """The query of `GET /metrics/fleet`."""

    keys: (
        Annotated[
            list[str],
            msgspec.Meta(
                description="Metric keys, separated by commas or in several parameters. Default: the public metrics of "
                "each application."
            ),
        ]
        | None
    ) = None


class FleetMetrics(Handler):
    """`GET /metrics/fleet`. It requires a viewer's token, whatever SHM_METRICS_PUBLIC says."""

    @operation("getFleetMetrics", Role.VIEWER, media_types=[CONTENT_TYPE])
    async def get(self, query: FleetMetricsQuery) -> bytes:
        """Installs by application, status and version, and chosen metrics, in the text format of Prometheus."""
        if query.keys is not None and len(set(query.keys)) > MAX_KEYS:
            raise BadRequest("bad_parameter", f"keys has more than {MAX_KEYS} metrics.")
        return render_samples(fleet_samples(await self.services.fleet_figures.read(query.keys)))
