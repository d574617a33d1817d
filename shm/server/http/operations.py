"""What a method of a handler declares, once, for the handler itself and for the OpenAPI document.

    @operation("getKpis", Role.VIEWER, headers=[FEED_CURSOR], refuses=[NotFound])
    async def get(self, slug: Slug, query: KpisQuery) -> ApplicationKpis:
        \"\"\"Every metric of an application.\"\"\"

Its signature is part of it: `query` is read from the query string and `body` from the JSON that came, both structs; any
other parameter is a named group of the route; what is returned is the answer. Without `query` nothing can be asked.
"""

import functools
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import NoneType
from typing import Annotated, Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

import msgspec
import tornado.web

from shm.auth.tokens import Role
from shm.core.errors import ConfigurationError, Refusal

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
READ_METHODS = ("get", "head", "options")  # whatever else changes something, which is an admin's
JSON = "application/json"

Slug = Annotated[str, msgspec.Meta(description="An application's slug, as `GET applications` tells it.")]
App = Annotated[str, msgspec.Meta(description="An application's slug or name.")]
InstanceId = Annotated[str, msgspec.Meta(description="An instance's ID, a UUID.")]
TokenId = Annotated[str, msgspec.Meta(description="A token's ID, a UUID.")]


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a successful answer; `always`: of each one."""

    name: str
    description: str
    shape: object = str
    always: bool = True


FEED_CURSOR = Header(
    "X-Feed-Cursor", "The feed's cursor that this is true at; with it as `since`, the feed tells what changed.", int
)
NEXT_PAGE = Header(
    "Link", 'Where the next page is, with `rel="next"`; the last page has none. To be taken as it is.', always=False
)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces, of one of the media types that its operation declares."""

    media: str
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Operation:
    """The parameters and the response of a method, the role that may call it, and its refusals beside the common ones.

    `name` is its ID in the OpenAPI document, and so a function's name in generated clients.
    """

    name: str
    role: Role
    docstring: str
    path: dict[str, Any]
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    returns: Any  # a type that msgspec encodes; or NoneType, bytes, Stream
    status: HTTPStatus
    media: Sequence[str]
    headers: Sequence[Header]
    refuses: Sequence[type[Refusal]]
    lenient: bool

    @property
    def has_body(self) -> bool:
        """Whether a success has a body."""
        return self.returns is not NoneType


class OperationHandler(Protocol):
    """A handler, as far as a declared method needs it."""

    async def dispatch_operation(
        self, declared: Operation, method: Callable[..., Awaitable[object]], path: Any
    ) -> None:
        """Reads what is asked, lets the method answer it, and sends the answer."""


H = TypeVar("H", bound=OperationHandler)
P = ParamSpec("P")


def operation(
    name: str,
    role: Role,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    media: Sequence[str] = (JSON,),
    headers: Sequence[Header] = (),
    refuses: Sequence[type[Refusal]] = (),
    lenient: bool = False,
) -> Callable[[Callable[Concatenate[H, P], Awaitable[object]]], Callable[..., Coroutine[Any, Any, None]]]:
    """Declares a method. `name`: its operation ID. `lenient`: unknown parameters are ignored, for public endpoints."""

    def declare(method: Callable[Concatenate[H, P], Awaitable[object]]) -> Callable[..., Coroutine[Any, Any, None]]:
        hints = get_type_hints(method, include_extras=True)
        returns, query, body = hints.pop("return"), hints.pop("query", None), hints.pop("body", None)
        docstring = inspect.getdoc(method) or ""
        declared = Operation(
            *(name, role, docstring, hints, query, body, returns, status, tuple(media), tuple(headers), tuple(refuses)),
            lenient,
        )

        @functools.wraps(method)
        async def dispatch(self: H, **path: str) -> None:
            await self.dispatch_operation(declared, method, path)

        dispatch.operation = declared  # type: ignore[attr-defined]  # found by `operations_of`
        return dispatch

    return declare


def operations_of(handler: type[tornado.web.RequestHandler]) -> dict[str, Operation]:
    """What each method of a handler declares; nothing where it declares nothing."""
    declared = {name: getattr(getattr(handler, name), "operation", None) for name in METHODS}
    return {name: found for name, found in declared.items() if found is not None}


def validate_operations(pattern: str, handler: type[tornado.web.RequestHandler]) -> None:
    """Raises ConfigurationError for a method that declares nothing, says nothing, wants another path than the route, or
    lets a viewer change something.
    """
    base = tornado.web.RequestHandler
    implemented = [name for name in METHODS if getattr(handler, name) is not getattr(base, name)]
    operations = operations_of(handler)
    if not implemented:
        raise ConfigurationError(f"{handler.__name__} answers no method.")
    for name in implemented:
        if name not in operations:
            raise ConfigurationError(
                f"{handler.__name__}.{name} is no `operation`, so it does not say who may call it."
            )
        if not operations[name].docstring:
            raise ConfigurationError(f"{handler.__name__}.{name} has no docstring, which is its summary.")
        if name not in READ_METHODS and operations[name].role < Role.ADMIN:
            raise ConfigurationError(f"{handler.__name__}.{name} lets others than admins change something.")
        if set(re.compile(pattern).groupindex) != set(operations[name].path):
            raise ConfigurationError(f"{handler.__name__}.{name} does not take what is in its path: {pattern}")
