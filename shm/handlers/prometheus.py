"""`GET /metrics`: how the server itself is, for monitoring systems."""

from shm.exposition import CONTENT_TYPE
from shm.handlers.admin import NoQuery
from shm.handlers.base import Handler
from shm.tokens import Role


class Metrics(Handler):
    """In the text format of Prometheus. A viewer's token is wanted unless SHM_METRICS_PUBLIC."""

    role = Role.VIEWER

    async def authorize(self) -> None:
        """Lets everybody in where that was set; the database is not asked then, so it may be away."""
        if not self.rooms.settings.metrics_public:
            await super().authorize()

    async def get(self) -> None:
        self.arguments_as(NoQuery)
        self.rooms.sampler.look()
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(self.rooms.exposition.text())
