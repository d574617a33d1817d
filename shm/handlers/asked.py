"""What a request asks: its query and its body as the structs that its operation declares. Raises BadRequest. Pure."""

from typing import Any, TypeVar

import msgspec

from shm.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)


class NoQuery(msgspec.Struct, frozen=True):
    """Nothing can be asked."""


def query_as(shape: type[T], given: dict[str, list[str]], *, lenient: bool = False) -> T:
    """The query string as a struct. `lenient`: a name that the struct has not is ignored."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    values: dict[str, Any] = {}
    for name, texts in given.items():
        if lenient and name not in fields:
            continue
        if len(texts) > 1:
            raise BadRequest("bad_parameter", f"{name!r:.40} is given more than once.")
        if name not in fields:
            raise BadRequest("unknown_parameter", f"There is no parameter {name!r:.40} here; there are: {[*fields]}.")
        values[name] = _value(name, texts[0], fields[name].type)
    try:
        return msgspec.convert(values, shape)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_parameter", f"{_told(error)}.") from None


def body_as(shape: type[T], body: bytes) -> T:
    """The JSON of a body as a struct."""
    try:
        body.decode()  # msgspec does not look into what no field takes
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_field", f"{_told(error)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("bad_json", "This is no JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest("too_deep", "The JSON is nested too deep to be read.") from None


def _value(name: str, text: str, shape: Any) -> Any:
    """Text where the field takes text, else what the text is in JSON: so `true` is a boolean, `1` and `TRUE` are not.

    A parameter that is not wanted is left out; nobody writes `null`.
    """
    try:
        return msgspec.convert(text, shape)
    except msgspec.ValidationError as error:
        if text != text.strip() or text == "null":
            raise BadRequest("bad_parameter", f"{name}: {_told(error)}.") from None
    try:
        return msgspec.json.decode(text.encode(), type=shape)
    except msgspec.ValidationError as error:
        raise BadRequest("bad_parameter", f"{name}: {_told(error)}.") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("bad_parameter", f"{name} is none of the values that it may have.") from None


def _told(error: msgspec.ValidationError) -> str:
    """Its sentence, in ASCII: what came may be in it."""
    return f"{ascii(str(error))[1:-1]:.200}"
