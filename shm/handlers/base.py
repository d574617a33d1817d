"""What all handlers share: who may call, one shape of error, JSON out, and requests in flight counted.

A handler declares the role that each of its methods needs; `server.make_application` refuses one that does not.
"""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

import msgspec
import tornado.web

from shm.errors import BadRequest, Forbidden, NotFound, Unauthorized
from shm.handlers import problems
from shm.handlers.rooms import Rooms
from shm.tokens import Role

T = TypeVar("T")

_encoder = msgspec.json.Encoder(decimal_format="number")


class Handler(tornado.web.RequestHandler):
    """The base of every handler."""

    role: ClassVar[Role]

    def initialize(self, rooms: Rooms) -> None:
        """Called by Tornado with what the route carries."""
        self.rooms = rooms
        self._counted = False

    async def prepare(self) -> None:
        """Lets in who may come in."""
        self.count()
        await self.admit()

    def count(self) -> None:
        """From here on until its answer is out, the request is in flight, and a drain waits for it."""
        self._counted = True
        self.rooms.enter()

    async def admit(self) -> None:
        """Refuses what may not come in, now or at all."""
        self.rooms.hold_open()
        await self.authorize()

    async def authorize(self) -> None:
        """Holds the bearer's role against the handler's. Raises Unauthorized or Forbidden."""
        if self.role < Role.VIEWER:
            return
        given = await self._role_given()
        if given < self.role:
            raise Forbidden("role_too_small", f"This needs a token with the role {self.role.name.lower()}.")

    async def _role_given(self) -> Role:
        tokens, limits = self.rooms.tokens, self.rooms.limits
        headers = self.request.headers
        token = tokens.given(headers.get("Authorization"))
        address = limits.address(self.request.remote_ip or "", headers.get_list("X-Forwarded-For"))
        limits.hold_ban(address, token)
        role = await tokens.role(token)
        limits.remember(address, token, good=role is not None)
        if role is None:
            raise Unauthorized("bad_token", "This token is not valid here.", {"WWW-Authenticate": "Bearer"})
        allowance = limits.take_token(token)
        if allowance is not None:
            for name, value in allowance.headers().items():
                self.set_header(name, value)
        return role

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """Ends the request; it is in flight until its last byte is out, or its client has gone."""
        out = super().finish(chunk)
        out.add_done_callback(self._out)
        return out

    def _out(self, out: "asyncio.Future[None]") -> None:
        out.exception()  # a client that has gone is no error
        if self._counted:
            self._counted = False
            self.rooms.leave()

    def set_default_headers(self) -> None:
        """Called by Tornado for every answer."""
        for name, value in problems.FIXED_HEADERS.items():
            self.set_header(name, value)

    def answer(self, body: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Ends the request with a JSON body."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(_encoder.encode(body))

    def arguments_as(self, shape: type[T]) -> T:
        """The query string as a struct. Raises BadRequest for a name that the struct has not, or a bad value."""
        given: dict[str, str] = {}
        for name in self.request.query_arguments:
            values = self.get_query_arguments(name)
            if len(values) > 1:
                raise BadRequest("bad_parameter", f"{name!r:.40} is given more than once.")
            given[name] = values[0]
        known = [field.encode_name for field in msgspec.structs.fields(shape)]  # type: ignore[arg-type]
        for name in given:
            if name not in known:
                raise BadRequest("unknown_parameter", f"There is no parameter {name!r:.40} here; there are: {known}.")
        try:
            return msgspec.convert(given, shape, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest("bad_parameter", f"{ascii(str(error))[1:-1]:.200}.") from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error has one shape, and none shows what is inside."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        refusal = problems.refusal_for(error, status_code)
        self.rooms.vitals.refusals.add(refusal.code)
        self.set_header("Content-Type", problems.CONTENT_TYPE)
        for name, value in refusal.headers.items():
            self.set_header(name, value)
        self.set_status(refusal.status)
        self.finish(problems.body_of(refusal))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Says what went wrong, without the request."""
        if not isinstance(value, tornado.web.HTTPError):
            problems.log(type(self).__name__, value)

    def compute_etag(self) -> str | None:
        """Nothing here is cached, so nothing is hashed for it."""
        return None


class Missing(Handler):
    """Whatever has no route."""

    role = Role.PUBLIC

    async def prepare(self) -> None:
        await super().prepare()
        raise NotFound("no_such_address", "There is nothing at this address.")
