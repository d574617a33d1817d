"""What the vendor reads: `/api/v1/admin/`. Shapes are those of `kpis` and `items`."""

from typing import Annotated

import msgspec

from shm import stats
from shm.errors import BadRequest, Conflict, NotFound
from shm.handlers.base import Handler
from shm.items import Filter, mark_of
from shm.kpis import MOST_KEYS
from shm.periods import Period
from shm.tokens import Role

MOST_ROWS = 1_000  # a page's upper end: about half a megabyte of JSON
USUAL_ROWS = 50  # as in the original


Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_ROWS)]


class PageOf(msgspec.Struct, frozen=True):
    """The query of a list."""

    limit: Limit = USUAL_ROWS
    after: str | None = None


class InstancesQuery(Filter, frozen=True):
    """The query of `GET instances`."""

    limit: Limit = USUAL_ROWS
    after: str | None = None


class KpisQuery(msgspec.Struct, frozen=True):
    """The query of `GET applications/{slug}/kpis`: over the counted instances only?"""

    counted: bool = False


class MetricsQuery(msgspec.Struct, frozen=True):
    """The query of `GET metrics/{app}`. `keys`: joined by commas; else those that most instances answer now."""

    period: Period = "24h"
    keys: str | None = None


class NoQuery(msgspec.Struct, frozen=True):
    """Nothing can be asked."""


class Reader(Handler):
    """A GET that a viewer may make."""

    role = Role.VIEWER


class Stats(Reader):
    """`GET stats`."""

    async def get(self) -> None:
        self.arguments_as(NoQuery)
        self.answer(await stats.read(self.rooms.database, self.rooms.settings))


class Applications(Reader):
    """`GET applications`, by slug."""

    async def get(self) -> None:
        query = self.arguments_as(PageOf)
        found = await self.rooms.applications.page(query.after, query.limit + 1)
        if len(found) > query.limit:
            self.link_next(found[query.limit - 1].slug)
        self.answer(found[: query.limit])


class Application(Reader):
    """`GET applications/{slug}`."""

    async def get(self, slug: str) -> None:
        self.arguments_as(NoQuery)
        found = await self.rooms.applications.one(slug)
        if found is None:
            raise no_such_application()
        self.answer(found)


class ApplicationKpis(Reader):
    """`GET applications/{slug}/kpis`."""

    async def get(self, slug: str) -> None:
        query = self.arguments_as(KpisQuery)
        found = await self.rooms.kpis.application(slug, counted_only=query.counted)
        if found is None:
            raise no_such_application()
        cursor, kpis = found
        self.set_header("X-Feed-Cursor", str(cursor))
        self.answer(kpis)


class Metrics(Reader):
    """`GET metrics/{app}`: an application, by slug or name, over a period."""

    async def get(self, app: str) -> None:
        query = self.arguments_as(MetricsQuery)
        keys = None if query.keys is None else query.keys.split(",")
        if keys is not None and len(keys) > MOST_KEYS:
            raise BadRequest("bad_parameter", f"keys names more than {MOST_KEYS} metrics.")
        found = await self.rooms.charts.metrics(app, query.period, keys)
        if found is None:
            raise no_such_application()
        self.answer(found)


class Instances(Reader):
    """`GET instances`, newest seen first."""

    async def get(self) -> None:
        query = self.arguments_as(InstancesQuery)
        page = await self.rooms.items.page(query, query.after, query.limit + 1)
        items = [changed.item for changed in page.changed]
        self.set_header("X-Feed-Cursor", str(page.cursor))
        if len(items) > query.limit:
            self.link_next(mark_of(items[query.limit - 1]))
        self.answer(items[: query.limit])


class Instance(Reader):
    """`GET instances/{id}`."""

    async def get(self, instance_id: str) -> None:
        self.arguments_as(NoQuery)
        await answer_instance(self, instance_id)


class Decision(Handler):
    """`POST instances/{id}/approve` and `/revoke`: answers the instance. Asked again, it changes nothing."""

    role = Role.ADMIN

    async def post(self, instance_id: str, decision: str) -> None:
        self.arguments_as(NoQuery)
        status = "active" if decision == "approve" else "revoked"
        await self.rooms.registry.decide(instance_id, status)
        await answer_instance(self, instance_id, decided=status)


async def answer_instance(handler: Handler, instance_id: str, decided: str | None = None) -> None:
    """Ends a request with an instance. Raises NotFound, or Conflict where a decision could not be carried out."""
    page = await handler.rooms.items.one(instance_id)
    if not page.changed:
        raise NotFound("no_such_instance", "There is no instance of that ID.")
    item = page.changed[0].item
    if decided is not None and item.status != decided:
        raise Conflict("revoked_for_good", "This instance is revoked, which is final.")
    handler.set_header("X-Feed-Cursor", str(page.cursor))
    handler.answer(item)


def no_such_application() -> NotFound:
    """The refusal for a slug that nobody has."""
    return NotFound("no_such_application", "There is no application of that slug.")
