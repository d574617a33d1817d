"""Parses a request's query and body into the structs that its operation declares. Pure functions.

Invalid input raises BadRequest.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from shm.core.errors import BadRequest
from shm.core.json_types import REPEATED

T = TypeVar("T", bound=msgspec.Struct)

# The `extra` of a parameter that the original server has and reads leniently: of several values the first one counts,
# and an invalid one, such as a number out of range, is the default.
LENIENT = {"is_lenient": True}

# An item of a list parameter, which may occur several times too. Commas separate items; an item with a comma is in
# double quotes, and those in it are doubled. The quantifiers are possessive, so that unclosed quotes cost linear time.
LIST_ITEM = re.compile(r'(?:^|,)(?:"((?:[^",]|"")*+,(?:[^"]|"")*+)"(?=,|\Z)|([^,]*))')
LOCATION_MARKER = " - at `"  # the last occurrence in a message of msgspec; the text before it may quote the input
LOCATION_STEP = re.compile(r"\.(\w+)|\[")  # of a location: to a field, or into a list or a dictionary


class NoQuery(msgspec.Struct, frozen=True):
    """The query of an operation without parameters."""


def parse_query(type_: type[T], arguments: Mapping[str, Sequence[str]]) -> T:
    """The query string as a struct. The values of a repeated list parameter are united."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    values: dict[str, Any] = {}
    for name, texts in arguments.items():
        if name not in fields:
            raise BadRequest("unknown_parameter", f"The parameter {name!r:.40} is unknown; allowed: {[*fields]}.")
        parameter = _Parameter.of(fields[name].type)
        if parameter.is_repeated:
            values[name] = list(texts)
        elif parameter.is_list:
            values[name] = [item for text in texts for item in _split_list(text)]
        elif parameter.is_lenient:
            values |= _parse_leniently(name, texts[0], fields[name].type)
        elif len(texts) > 1:
            raise BadRequest("bad_parameter", f"{name!r:.40} occurs more than once.")
        else:
            values[name] = _parse_value(name, texts[0], fields[name].type)
    try:
        return msgspec.convert(values, type_)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_parameter", f"{_describe(error, type_)}.") from None


def parse_body(type_: type[T], body: bytes) -> T:
    """The JSON body as a struct."""
    try:
        body.decode()  # msgspec does not check the UTF-8 of values of unknown fields
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_field", f"{_describe(error, type_)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = [field.encode_name for field in msgspec.structs.fields(type_)]
        raise BadRequest("bad_json", f"The body is not a JSON object in UTF-8 with the fields {fields}.") from None
    except RecursionError:
        raise BadRequest("too_deep", "The JSON is nested too deeply.") from None


def _split_list(text: str) -> Iterator[str]:
    for quoted, plain in LIST_ITEM.findall(text):
        yield quoted.replace('""', '"') or plain


class _Parameter(msgspec.Struct, frozen=True):
    """The properties of a parameter's type."""

    is_list: bool = False
    is_lenient: bool = False
    is_repeated: bool = False

    @classmethod
    def of(cls, type_: Any) -> "_Parameter":
        """The properties of the type, or of the alternative to None."""
        info, is_lenient, is_repeated = inspect.type_info(type_), False, False
        while isinstance(info, inspect.Metadata | inspect.UnionType):
            if isinstance(info, inspect.Metadata):
                is_lenient = is_lenient or info.extra == LENIENT
                is_repeated = is_repeated or info.extra == REPEATED
                info = info.type
            else:
                info = next(each for each in info.types if not isinstance(each, inspect.NoneType))
        return cls(isinstance(info, inspect.ListType), is_lenient, is_repeated)


def _parse_leniently(name: str, text: str, type_: Any) -> dict[str, Any]:
    """The value by name; nothing, which leaves the default, if the text is invalid."""
    try:
        return {name: _parse_value(name, text, type_)}
    except BadRequest:
        return {}


def _parse_value(name: str, text: str, type_: Any) -> Any:
    """The text itself for a text field, otherwise its value as JSON: `true` is a boolean, `1` and `TRUE` are not.

    `null` is refused: a client omits a parameter that it does not need.
    """
    try:
        return msgspec.convert(text, type_)
    except msgspec.ValidationError as error:
        if text != text.strip() or text == "null" or any(_allowed_values(inspect.type_info(type_), ())):
            raise BadRequest("bad_parameter", f"{name}: {_describe(error, type_)}.") from None
    try:
        return msgspec.json.decode(text.encode(), type=type_)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_parameter", f"{name}: {_describe(error, type_)}.") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("bad_parameter", f"{name} has an invalid value.") from None


def _describe(error: msgspec.ValidationError, type_: Any) -> str:
    """The error, its location, and the allowed values of a Literal. In ASCII, because the text may quote the input."""
    text = str(error)
    message, separator, location = text.rpartition(LOCATION_MARKER) if LOCATION_MARKER in text else (text, "", "")
    values = [*_allowed_values(inspect.type_info(type_), LOCATION_STEP.findall(location))]
    allowed = f"; allowed: {values}" if values else ""
    return f"{ascii(message)[1:-1]:.150}{separator}{ascii(location)[1:-1]:.100}{allowed}"


def _allowed_values(type_info: inspect.Type, steps: Sequence[str]) -> Iterator[object]:
    """The values of the Literal at the end of these steps from a type."""
    match type_info:
        case inspect.UnionType(types=choices):
            for choice in choices:
                yield from _allowed_values(choice, steps)
        case inspect.Metadata(type=inner):
            yield from _allowed_values(inner, steps)
        case inspect.LiteralType(values=values) if not steps:
            yield from values
        case inspect.StructType(fields=fields) if steps:
            for field in fields:
                if field.encode_name == steps[0]:
                    yield from _allowed_values(field.type, steps[1:])
        case inspect.DictType(value_type=inner) | inspect.ListType(item_type=inner) if steps:
            yield from _allowed_values(inner, steps[1:])
