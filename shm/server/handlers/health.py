"""Liveness and readiness of the server, for load balancers and operators."""

from typing import Literal

import msgspec

from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import operation


class Liveness(msgspec.Struct):
    """The body of `GET /api/v1/healthcheck`."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct):
    """The body of `GET /api/v1/ready`."""

    status: Literal["ready"] = "ready"


class Healthcheck(Handler):
    """`GET /api/v1/healthcheck`, as in the original."""

    @operation("getLiveness", Role.PUBLIC)
    async def get(self) -> Liveness:
        """Whether the server process responds."""
        return Liveness()


class Ready(Handler):
    """`GET /api/v1/ready`."""

    @operation("getReadiness", Role.PUBLIC)
    async def get(self) -> Readiness:
        """Whether a snapshot could be stored; 503 if not. The answer is at most a second old."""
        await self.services.write_probe.check()
        return Readiness()
