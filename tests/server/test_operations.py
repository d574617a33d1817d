"""Each method declares its role, parameters and response; without a valid declaration the server does not start."""

import re
from typing import Annotated

import msgspec
import pytest

from shm.auth.tokens import Role
from shm.core.errors import BadRequest, ConfigurationError
from shm.server.app import ROUTES
from shm.server.handlers.base import Handler
from shm.server.http.operations import Slug, operation, validate_operations
from shm.server.http.params import LENIENT, parse_body, parse_query


class ExampleQuery(msgspec.Struct):
    """A query with a field of each type."""

    limit: int = 50
    counted: bool = False
    since: int | None = None
    name: str | None = None


class LenientQuery(msgspec.Struct):
    """A query with parameters that the original has, and a list."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=100, extra=LENIENT)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000, extra=LENIENT)] = 50
    keys: list[str] | None = None


class _WithoutDeclaration(Handler):
    async def get(self) -> None:
        """Has no declaration."""


class _WithoutDocstring(Handler):
    @operation("anything", Role.VIEWER)
    async def get(self) -> bytes:
        return b""


class _WithOtherPathParameters(Handler):
    @operation("anything", Role.VIEWER)
    async def get(self, slug: Slug) -> bytes:
        """Takes a slug."""
        return slug.encode()


class _WithoutMethods(Handler):
    pass


@pytest.mark.parametrize(("pattern", "handler"), ROUTES)
def test_every_method_has_a_valid_declaration(pattern: str, handler: type[Handler]) -> None:
    validate_operations(pattern, handler)


@pytest.mark.parametrize("handler", [_WithoutDeclaration, _WithoutDocstring, _WithOtherPathParameters, _WithoutMethods])
def test_a_handler_with_an_invalid_declaration_is_refused(handler: type[Handler]) -> None:
    with pytest.raises(ConfigurationError, match=handler.__name__):
        validate_operations("/somewhere", handler)


def test_a_query_is_parsed_as_declared() -> None:
    assert parse_query(ExampleQuery, {"limit": ["7"], "counted": ["true"], "name": ["null"]}) == ExampleQuery(
        7, True, None, "null"
    )


@pytest.mark.parametrize(
    ("texts", "offset", "limit"),
    [
        ({}, 0, 50),
        ({"offset": ["7"], "limit": ["20"]}, 7, 20),
        ({"offset": ["7", "x"], "limit": ["20", "30"]}, 7, 20),
        ({"offset": ["-1"], "limit": ["0"]}, 0, 50),
        ({"offset": ["x"], "limit": [""]}, 0, 50),
        ({"offset": ["101"], "limit": ["1001"]}, 0, 50),
        ({"limit": ["9999999999999999999999"]}, 0, 50),
    ],
)
def test_an_invalid_lenient_parameter_has_its_default(texts: dict[str, list[str]], offset: int, limit: int) -> None:
    assert parse_query(LenientQuery, texts) == LenientQuery(offset, limit)


def test_a_list_parameter_unites_its_values() -> None:
    assert parse_query(LenientQuery, {"keys": ["a,b", "", "c"]}).keys == ["a", "b", "", "c"]
    assert parse_query(LenientQuery, {}).keys is None


@pytest.mark.parametrize(
    ("name", "text"),
    [("limit", "x"), ("limit", " 7"), ("limit", ""), ("counted", "1"), ("counted", "TRUE"), ("since", "null")],
)
def test_an_invalid_parameter_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(name)) as raised:
        parse_query(ExampleQuery, {name: [text]})
    assert raised.value.code == "bad_parameter"


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "bad_json"), (b"[]", "bad_field"), (b'{"limit": "7"}', "bad_field"), (b'{"x": "\xff"}', "bad_json")],
)
def test_an_invalid_body_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse_body(ExampleQuery, body)
    assert raised.value.code == code
