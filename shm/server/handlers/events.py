"""`GET events`: what happened to the applications and to the server."""

from typing import Annotated

import msgspec

from shm.analytics.events import Event, encode_page_token
from shm.auth.tokens import Role
from shm.server.handlers.admin import PageQuery
from shm.server.handlers.base import Handler
from shm.server.http.operations import NEXT_PAGE, operation


class EventsQuery(PageQuery, frozen=True):
    """The query of `GET events`."""

    app: (
        Annotated[
            str, msgspec.Meta(description="An application's slug or name: only its events, without the server's.")
        ]
        | None
    ) = None


class Events(Handler):
    """`GET events`."""

    @operation("listEvents", Role.VIEWER, headers=[NEXT_PAGE])
    async def get(self, query: EventsQuery) -> list[Event]:
        """New versions, installs lost and returned by day, approvals due, floods of registrations, server starts.

        The newest first, within a year. Installs that were lost or returned on a day are counted once the day (UTC) is
        over. An application has at most 20 new versions on a day; further ones have no event.
        """
        events = await self.services.events.list_page(query.app, query.after, query.limit + 1)
        if len(events) > query.limit:
            self.set_next_link(encode_page_token(events[query.limit - 1]))
        return events[: query.limit]
