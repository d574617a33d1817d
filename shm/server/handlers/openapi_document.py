"""`GET /api/openapi.json`: the document of `shm.server.openapi`, which is built once at the start."""

from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation


class OpenApi(Handler):
    """`GET /api/openapi.json`."""

    @operation("getOpenApiDocument", Role.PUBLIC)
    async def get(self) -> bytes:
        """This OpenAPI document."""
        built: bytes = self.settings["openapi"]
        return built
