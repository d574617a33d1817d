"""The tokens of the admin API, which admins list, create and delete."""

import logging
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from shm.auth.tokens import MAX_NAME_LENGTH, IssuedToken, Role, Token, encode_page_token
from shm.core.errors import BadRequest, Conflict, NotFound
from shm.core.settings.parsers import parse_duration
from shm.server.handlers.admin import PageQuery
from shm.server.handlers.base import Handler
from shm.server.http.operations import NEXT_PAGE, TokenId, operation

logger = logging.getLogger(__name__)


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST tokens`."""

    name: Annotated[
        str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH, description="The user of the token, for lists.")
    ]
    role: Literal["viewer", "admin"]
    expires_in: (
        Annotated[str, msgspec.Meta(description="A duration such as `90d`. Default: the token does not expire.")] | None
    ) = None


class TokenList(Handler):
    """`GET tokens` and `POST tokens`."""

    @operation("listTokens", Role.ADMIN, headers=[NEXT_PAGE])
    async def get(self, query: PageQuery) -> list[Token]:
        """Tokens without their secrets, newest first."""
        tokens = await self.services.tokens.list_page(query.after, query.limit + 1)
        if len(tokens) > query.limit:
            self.set_next_link(encode_page_token(tokens[query.limit - 1]))
        return tokens[: query.limit]

    @operation("createToken", Role.ADMIN, status=HTTPStatus.CREATED, refuses=[Conflict])
    async def post(self, body: NewToken) -> IssuedToken:
        """Creates a token. Only this response contains its secret."""
        issued = await self.services.tokens.create(
            body.name, Role[body.role.upper()], _parse_expiry(body.expires_in), self.principal
        )
        logger.info("token %s was created with the role %s", issued.id, issued.role)
        return issued


class TokenDetail(Handler):
    """`DELETE tokens/{id}`."""

    @operation("deleteToken", Role.ADMIN, status=HTTPStatus.NO_CONTENT, refuses=[NotFound, Conflict])
    async def delete(self, token_id: TokenId) -> None:
        """Deletes a token, with immediate effect in every server. A token cannot delete itself."""
        await self.services.tokens.delete(token_id, principal=self.principal)
        logger.info("token %s was deleted", token_id)


class RotateToken(Handler):
    """`POST tokens/{id}/rotate`."""

    @operation("rotateToken", Role.ADMIN, refuses=[NotFound, Conflict])
    async def post(self, token_id: TokenId) -> IssuedToken:
        """Replaces the secret of a token, with immediate effect in every server. Only this response contains it."""
        issued = await self.services.tokens.rotate(token_id, self.principal)
        logger.info("token %s was rotated", token_id)
        return issued


def _parse_expiry(expires_in: str | None) -> timedelta | None:
    try:
        return None if expires_in is None else parse_duration(expires_in)
    except ValueError as error:
        raise BadRequest("bad_field", f"expires_in is invalid: expected {error}, or null.") from None
