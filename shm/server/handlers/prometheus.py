"""`GET /metrics`: the server's own metrics, for monitoring systems."""

from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation
from shm.server.prometheus import CONTENT_TYPE


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
