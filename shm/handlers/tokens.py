"""The tokens of the admin API: who may read and who may change, listed, made and removed by admins."""

import logging
from datetime import timedelta
from http import HTTPStatus

from shm.errors import BadRequest
from shm.handlers.admin import NoQuery, PageOf
from shm.handlers.base import Body, Handler
from shm.tokens import Role, mark_of
from shm.values import duration

logger = logging.getLogger(__name__)

ROLES = {"viewer": Role.VIEWER, "admin": Role.ADMIN}


class NewToken(Body, frozen=True):
    """The body of `POST tokens`. `expires_in` is a duration such as `90d`; without one the token has no end."""

    name: str
    role: str
    expires_in: str | None = None


class TokenList(Handler):
    """`GET tokens`, newest first, and `POST tokens`, which answers the token, this once."""

    role = Role.ADMIN

    async def get(self) -> None:
        query = self.arguments_as(PageOf)
        found = await self.rooms.tokens.page(query.after, query.limit + 1)
        if len(found) > query.limit:
            self.link_next(mark_of(found[query.limit - 1]))
        self.answer(found[: query.limit])

    async def post(self) -> None:
        self.arguments_as(NoQuery)
        wanted = self.body_as(NewToken)
        role = ROLES.get(wanted.role)
        if role is None:
            raise BadRequest("bad_field", f"role is none that a token can have; there are: {list(ROLES)}.")
        issued = await self.rooms.tokens.add(wanted.name, role, _read(wanted.expires_in))
        logger.info("token %s was made, for the role %s", issued.id, issued.role)
        self.answer(issued, HTTPStatus.CREATED)


class OneToken(Handler):
    """`DELETE tokens/{id}`."""

    role = Role.ADMIN

    async def delete(self, token_id: str) -> None:
        self.arguments_as(NoQuery)
        await self.rooms.tokens.remove(token_id, asking=self.granted)
        logger.info("token %s was removed", token_id)
        self.set_status(HTTPStatus.NO_CONTENT)
        self.finish()


def _read(expires_in: str | None) -> timedelta | None:
    try:
        return None if expires_in is None else duration(expires_in)
    except ValueError as error:
        raise BadRequest("bad_field", f"expires_in cannot be read: wanted is {error}, or null.") from None
