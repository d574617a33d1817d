"""Each method says once who may call it, what is asked and what is answered, or the server does not start."""

import re

import msgspec
import pytest

from shm.auth.tokens import Role
from shm.core.errors import BadRequest, ConfigurationError
from shm.server.app import ROUTES
from shm.server.handlers.base import Handler
from shm.server.http.operations import Slug, operation, validate_operations
from shm.server.http.params import parse_body, parse_query


class Asked(msgspec.Struct):
    """A query of each sort."""

    limit: int = 50
    counted: bool = False
    since: int | None = None
    name: str | None = None


class _Mute(Handler):
    async def get(self) -> None:
        """Whatever it does, nobody knows who may call it."""


class _Unsaid(Handler):
    @operation("anything", Role.VIEWER)
    async def get(self) -> bytes:
        return b""


class _Elsewhere(Handler):
    @operation("anything", Role.VIEWER)
    async def get(self, slug: Slug) -> bytes:
        """Takes a slug."""
        return slug.encode()


class _Nothing(Handler):
    pass


@pytest.mark.parametrize(("pattern", "handler"), ROUTES)
def test_every_method_says_who_may_call_it(pattern: str, handler: type[Handler]) -> None:
    validate_operations(pattern, handler)


@pytest.mark.parametrize("handler", [_Mute, _Unsaid, _Elsewhere, _Nothing])
def test_a_handler_that_does_not_say_what_it_does_refuses_to_start(handler: type[Handler]) -> None:
    with pytest.raises(ConfigurationError, match=handler.__name__):
        validate_operations("/somewhere", handler)


def test_a_query_is_read_as_it_is_declared() -> None:
    assert parse_query(Asked, {"limit": ["7"], "counted": ["true"], "name": ["null"]}) == Asked(7, True, None, "null")
    assert parse_query(Asked, {"utm": ["x", "y"], "limit": ["7"]}, lenient=True) == Asked(7)


@pytest.mark.parametrize(
    ("name", "text"),
    [("limit", "x"), ("limit", " 7"), ("limit", ""), ("counted", "1"), ("counted", "TRUE"), ("since", "null")],
)
def test_a_parameter_that_is_not_what_is_declared_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(name)) as refused:
        parse_query(Asked, {name: [text]})
    assert refused.value.code == "bad_parameter"


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "bad_json"), (b"[]", "bad_field"), (b'{"limit": "7"}', "bad_field"), (b'{"x": "\xff"}', "bad_json")],
)
def test_a_body_that_is_not_what_is_declared_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_body(Asked, body)
    assert refused.value.code == code
