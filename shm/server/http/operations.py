"""The declaration of a handler's method, used by the handler itself and by the OpenAPI document.

    @operation("getKpis", Role.VIEWER, headers=[FEED_CURSOR], refuses=[NotFound])
    async def get(self, slug: Slug, query: KpisQuery) -> ApplicationKpis:
        \"\"\"Every metric of an application.\"\"\"

The method's signature is part of the declaration. `query` is a struct that is read from the query string, and `body`
a struct that is read from the JSON body. Any other parameter is a named group of the route. The returned value is the
response. Without `query`, any query parameter is refused.
"""

import functools
import inspect
import re
import sys
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
READ_METHODS = ("get", "head", "options")  # all other methods change data, which requires the role admin
JSON = "application/json"
WITHOUT_DOCSTRINGS = 2  # the level of PYTHONOPTIMIZE that removes them: then the document has no summaries

Slug = Annotated[str, msgspec.Meta(description="An application's slug, from `GET applications`.")]
App = Annotated[str, msgspec.Meta(description="An application's slug or name.")]
InstanceId = Annotated[str, msgspec.Meta(description="An instance's ID, a UUID, or the first digits of one.")]
TokenId = Annotated[str, msgspec.Meta(description="A token's ID, a UUID.")]


@dataclass(frozen=True, slots=True)
class Header:
    """A header of successful responses. `always`: every one of them has it."""

    name: str
    description: str
    value_type: object = str
    always: bool = True


FEED_CURSOR = Header(
    "X-Feed-Cursor",
    "The feed's cursor of the response's state. After it, the feed sends all later changes.",
    int,
)
NEXT_PAGE = Header(
    "Link",
    'The next page, with `rel="next"`; the last page has none. Relative to the URL of the request. Of a page that was '
    'requested with `before` or `around`, the page before it, with `rel="prev"`.',
    always=False,
)


ROWS_BEFORE = Header("X-Rows-Before", "With `around`, the number of matching rows before the page.", int, always=False)


@dataclass(frozen=True, slots=True)
class Stream:
    """A response in chunks, of one of the media types that its operation declares."""

    media_type: str
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Operation:
    """The parameters and the response of a method, the role that may call it, and its specific refusals.

    `name` is the operation ID in the OpenAPI document, from which generated clients make a function's name.
    """

    name: str
    role: Role
    docstring: str
    path: dict[str, Any]
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    returns: Any  # a type that msgspec encodes; or NoneType, bytes, Stream
    status: HTTPStatus
    media_types: Sequence[str]
    headers: Sequence[Header]
    refuses: Sequence[type[Refusal]]

    @property
    def has_body(self) -> bool:
        """Whether a success has a body."""
        return self.returns is not NoneType


class OperationHandler(Protocol):
    """The part of a handler that a declared method needs."""

    async def dispatch_operation(
        self, declared: Operation, method: Callable[..., Awaitable[object]], path: Any
    ) -> None:
        """Parses the request, calls the method and sends its response."""


H = TypeVar("H", bound=OperationHandler)
P = ParamSpec("P")


def operation(
    name: str,
    role: Role,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    media_types: Sequence[str] = (JSON,),
    headers: Sequence[Header] = (),
    refuses: Sequence[type[Refusal]] = (),
) -> Callable[[Callable[Concatenate[H, P], Awaitable[object]]], Callable[..., Coroutine[Any, Any, None]]]:
    """Declares a method. `name`: its operation ID."""

    def declare(method: Callable[Concatenate[H, P], Awaitable[object]]) -> Callable[..., Coroutine[Any, Any, None]]:
        hints = get_type_hints(method, include_extras=True)
        returns, query, body = hints.pop("return"), hints.pop("query", None), hints.pop("body", None)
        docstring = inspect.getdoc(method) or ""
        declared = Operation(
            name=name,
            role=role,
            docstring=docstring,
            path=hints,
            query=query,
            body=body,
            returns=returns,
            status=status,
            media_types=tuple(media_types),
            headers=tuple(headers),
            refuses=tuple(refuses),
        )

        @functools.wraps(method)
        async def dispatch(self: H, **path: str) -> None:
            await self.dispatch_operation(declared, method, path)

        dispatch.operation = declared  # type: ignore[attr-defined]  # found by `operations_of`
        return dispatch

    return declare


def operations_of(handler: type[tornado.web.RequestHandler]) -> dict[str, Operation]:
    """The declarations of a handler's methods, by method. A method without a declaration is left out."""
    declared = {name: getattr(getattr(handler, name), "operation", None) for name in METHODS}
    return {name: found for name, found in declared.items() if found is not None}


def validate_operations(pattern: str, handler: type[tornado.web.RequestHandler]) -> None:
    """Raises ConfigurationError for a method with a faulty declaration.

    A fault is a missing declaration or docstring, path parameters other than those of the route, or a method that
    changes data and is allowed to viewers.
    """
    base = tornado.web.RequestHandler
    implemented = [name for name in METHODS if getattr(handler, name) is not getattr(base, name)]
    operations = operations_of(handler)
    if not implemented:
        raise ConfigurationError(f"{handler.__name__} implements no method.")
    for name in implemented:
        if name not in operations:
            raise ConfigurationError(f"{handler.__name__}.{name} is not an `operation`, so its role is unknown.")
        if not operations[name].docstring and sys.flags.optimize < WITHOUT_DOCSTRINGS:
            raise ConfigurationError(f"{handler.__name__}.{name} has no docstring, which is its summary.")
        if name not in READ_METHODS and operations[name].role < Role.ADMIN:
            raise ConfigurationError(f"{handler.__name__}.{name} changes data but does not require the role admin.")
        if set(re.compile(pattern).groupindex) != set(operations[name].path):
            raise ConfigurationError(f"{handler.__name__}.{name} does not have the parameters of its path: {pattern}")
