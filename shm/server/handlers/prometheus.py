"""`GET /metrics`: how the server itself is, for monitoring systems."""

from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation
from shm.server.prometheus import CONTENT_TYPE


class Figures(Handler):
    """A viewer's token is wanted unless SHM_METRICS_PUBLIC."""

    async def authorize(self, wanted: Role) -> None:
        """Lets everybody in where that was set; the database is not asked then, so it may be away."""
        if not self.rooms.settings.metrics_public:
            await super().authorize(wanted)

    @operation(Role.VIEWER, media=[CONTENT_TYPE])
    async def get(self) -> bytes:
        """How the server is, in the text format of Prometheus."""
        self.rooms.sampler.look()
        return self.rooms.exposition.text()
