"""`GET /api/openapi.json`: what `shm.openapi` makes of all declarations, built once at the start."""

from shm.handlers.base import Handler
from shm.handlers.declared import operation
from shm.tokens import Role


class OpenApi(Handler):
    """`GET /api/openapi.json`."""

    @operation(Role.PUBLIC, lenient=True)
    async def get(self) -> bytes:
        """This document."""
        built: bytes = self.settings["openapi"]
        return built
