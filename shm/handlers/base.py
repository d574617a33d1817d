"""What all handlers share: who may call, one shape of error, JSON out, and requests in flight counted.

A handler declares the role that each of its methods needs; `server.make_application` refuses one that does not.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

import msgspec
import tornado.httputil
import tornado.web
import tornado.websocket

from shm.database import Database
from shm.errors import (
    BadRequest,
    DatabaseUnavailable,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    QueryTooSlow,
    Refusal,
    UnstorableData,
)
from shm.feed import Feed
from shm.intake import Intake
from shm.items import Items
from shm.kpis import Kpis
from shm.registry import Registry
from shm.settings import Settings
from shm.tokens import Role, Tokens

logger = logging.getLogger(__name__)

T = TypeVar("T")

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(slots=True)
class Rooms:
    """What handlers work with: one of each for a server process."""

    settings: Settings
    database: Database
    registry: Registry
    intake: Intake
    items: Items
    kpis: Kpis
    feed: Feed
    tokens: Tokens
    sockets: set[tornado.websocket.WebSocketHandler] = field(default_factory=set)
    draining: bool = False
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while nothing is in flight

    def __post_init__(self) -> None:
        self.idle.set()

    def enter(self) -> None:
        """A request begins."""
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """A request has its answer."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


class Problem(msgspec.Struct):
    """RFC 9457, with a stable `code` for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str


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
        if self.rooms.draining:
            ending = Overloaded("shutting_down", "The server is ending; try again in a moment.", 2)
            ending.headers["Connection"] = "close"
            raise ending
        await self.authorize()

    async def authorize(self) -> None:
        """Holds the bearer's role against the handler's. Raises Unauthorized or Forbidden."""
        if self.role < Role.VIEWER:
            return
        given = await self.rooms.tokens.role(self.request.headers.get("Authorization"))
        if given < self.role:
            raise Forbidden("role_too_small", f"This needs a token with the role {self.role.name.lower()}.")

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
        """No answer names the library, is sniffed for another type, or is kept by a cache."""
        self.set_header("Server", "shm")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

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
                raise BadRequest("bad_parameter", f"{name} is given more than once.")
            given[name] = values[0]
        known = [field.encode_name for field in msgspec.structs.fields(shape)]  # type: ignore[arg-type]
        for name in given:
            if name not in known:
                raise BadRequest("unknown_parameter", f"There is no parameter {name!r:.40} here; there are: {known}.")
        try:
            return msgspec.convert(given, shape, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest("bad_parameter", f"{error}.") from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error has one shape, and none shows what is inside."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        refusal = _refusal(error, status_code)
        self.set_header("Content-Type", "application/problem+json")
        for name, value in refusal.headers.items():
            self.set_header(name, value)
        self.set_status(refusal.status)
        problem = Problem(
            f"urn:shm:problem:{refusal.code}",
            *(refusal.status.phrase, refusal.status.value, refusal.detail, refusal.code),
        )
        self.finish(_encoder.encode(problem))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Says what went wrong without the request, whose line would hold the client's address."""
        if isinstance(value, Refusal | UnstorableData | tornado.web.HTTPError):
            return
        if isinstance(value, DatabaseUnavailable):
            logger.warning("%s: the database is away or too slow (%s)", type(self).__name__, value)
            return
        logger.error("%s failed", type(self).__name__, exc_info=(typ, value, tb))

    def compute_etag(self) -> str | None:
        """Nothing here is cached, so nothing is hashed for it."""
        return None


class Missing(Handler):
    """Whatever has no route."""

    role = Role.PUBLIC

    async def prepare(self) -> None:
        await super().prepare()
        raise NotFound("no_such_address", "There is nothing at this address.")


class _Internal(Refusal):
    status = HTTPStatus.INTERNAL_SERVER_ERROR


def _refusal(error: BaseException | None, status_code: int) -> Refusal:
    match error:
        case Refusal():
            return error
        case QueryTooSlow():
            return Overloaded("database_too_slow", "The database took too long over this.")
        case UnstorableData():
            return BadRequest("unstorable", "A value in this request is none that the database can hold.")
        case DatabaseUnavailable():
            return Overloaded("database_unavailable", "The database is away; nothing acknowledged is lost.")
    if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed("method_not_allowed", "This address does not know that method.")
    if status_code == HTTPStatus.NOT_FOUND:
        return NotFound("no_such_address", "There is nothing at this address.")
    if HTTPStatus.BAD_REQUEST <= status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return BadRequest("bad_request", "The request cannot be read.")
    return _Internal("internal_error", "Something went wrong here; the server's log says what.")
