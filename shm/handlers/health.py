"""Is it alive, and can it work: for load balancers and for people."""

from dataclasses import dataclass

from shm.handlers.base import Handler
from shm.tokens import Role


@dataclass(frozen=True, slots=True)
class _One:
    one: int


class Healthcheck(Handler):
    """`GET /api/v1/healthcheck`: 200 while the process answers, as in the original."""

    role = Role.PUBLIC

    async def get(self) -> None:
        self.answer({"status": "ok"})

    head = get


class Ready(Handler):
    """`GET /api/v1/ready`: 200 when the database answers (it was migrated before the server listened), else 503."""

    role = Role.PUBLIC

    async def get(self) -> None:
        await self.rooms.database.fetch(_One, "health.ping")
        self.answer({"status": "ready"})
