"""What all handlers share: who may call, one shape of error, JSON out, and requests in flight counted.

A handler declares the role that its methods need, for all of them or for each; `server.make_application` refuses one
that does not. Bodies are structs that refuse fields which they do not have.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

import msgspec
import tornado.web

from shm.errors import BadRequest, Forbidden, NotFound, TooLarge, Unauthorized
from shm.handlers import problems
from shm.handlers.rooms import Rooms
from shm.tokens import Granted, Role

T = TypeVar("T")

_encoder = msgspec.json.Encoder(decimal_format="number")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a body may say: a misspelt field must not quietly be none."""


B = TypeVar("B", bound=Body)


class Handler(tornado.web.RequestHandler):
    """The base of every handler."""

    role: ClassVar[Role]  # what each of its methods needs
    roles: ClassVar[Mapping[str, Role]] = {}  # what a method needs instead: {"PUT": Role.ADMIN}
    granted: Granted | None = None  # to the token that came, where one was wanted

    @classmethod
    def methods(cls) -> list[str]:
        """The HTTP methods that it answers."""
        unanswered = tornado.web.RequestHandler
        return [
            name
            for name in unanswered.SUPPORTED_METHODS
            if getattr(cls, name.lower()) is not getattr(unanswered, name.lower())
        ]

    @classmethod
    def role_for(cls, method: str) -> Role | None:
        """What a method needs; None where the handler does not say."""
        return cls.roles.get(method, getattr(cls, "role", None))

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
        """Holds the bearer's role against the method's. Raises Unauthorized or Forbidden."""
        needed = self.role_for(self.request.method or "")
        if needed is None:  # a method that is not answered, of a handler that says the role of each
            needed = Role.ADMIN
        if needed < Role.VIEWER:
            return
        self.granted = await self._granted()
        if self.granted.role < needed:
            raise Forbidden("role_too_small", f"This needs a token with the role {needed.name.lower()}.")

    async def _granted(self) -> Granted:
        tokens, limits = self.rooms.tokens, self.rooms.limits
        headers = self.request.headers
        token = tokens.given(headers.get("Authorization"))
        address = limits.address(self.request.remote_ip or "", headers.get_list("X-Forwarded-For"))
        limits.hold_ban(address, token)
        granted = await tokens.granted(token)
        limits.remember(address, token, good=granted is not None)
        if granted is None:
            raise Unauthorized("bad_token", "This token is not valid here.", {"WWW-Authenticate": "Bearer"})
        allowance = limits.take_token(token)
        if allowance is not None:
            for name, value in allowance.headers().items():
                self.set_header(name, value)
        return granted

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

    def link_next(self, after: str) -> None:
        """Says where a list's next page is: the same query, after a mark."""
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments} | {"after": after}
        self.set_header("Link", f'<{self.request.path}?{urlencode(query)}>; rel="next"')

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

    def body_as(self, shape: type[B]) -> B:
        """The JSON body as a struct.

        Raises TooLarge, or BadRequest for what is no JSON, a field that the struct has not, or a bad value.
        """
        most = self.rooms.settings.max_body
        if len(self.request.body) > most:
            raise TooLarge("body_too_large", f"The body is larger than {most} bytes.")
        try:
            self.request.body.decode()  # msgspec does not look into what no field takes
            return msgspec.json.decode(self.request.body, type=shape)
        except msgspec.ValidationError as error:
            raise BadRequest("bad_field", f"{ascii(str(error))[1:-1]:.200}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            fields = [field.encode_name for field in msgspec.structs.fields(shape)]
            raise BadRequest("bad_json", f"The body is no JSON object in UTF-8 with the fields {fields}.") from None
        except RecursionError:
            raise BadRequest("too_deep", "The JSON is nested too deep to be read.") from None

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
