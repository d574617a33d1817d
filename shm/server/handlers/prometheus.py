"""`GET /metrics`: how the server itself is, for monitoring systems."""

from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation
from shm.server.prometheus import CONTENT_TYPE


class PrometheusMetrics(Handler):
    """A viewer's token is wanted unless SHM_METRICS_PUBLIC."""

    async def authorize(self, required_role: Role) -> None:
        """Lets everybody in where that was set; the database is not asked then, so it may be away."""
        if not self.services.settings.metrics_public:
            await super().authorize(required_role)

    @operation("getServerMetrics", Role.VIEWER, media=[CONTENT_TYPE])
    async def get(self) -> bytes:
        """How the server is, in the text format of Prometheus."""
        self.services.sampler.sample()
        return self.services.metrics_exporter.text()
