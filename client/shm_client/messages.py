"""The messages of the change feed, as the websocket delivers them. docs/feed.md describes each."""

from typing import Any

import msgspec

from .errors import InvalidResponseError
from .model import Instance, Kpis, Sanitizer, decode, decode_plain, keep_unchanged


class HelloMessage(msgspec.Struct, frozen=True, tag="hello"):
    """The first message; `cursor` is where the subscription begins."""

    cursor: int


class InstanceMessage(msgspec.Struct, frozen=True, tag="instance"):
    """The current state of an instance that is new or has changed."""

    cursor: int
    instance: Instance


class RemovedMessage(msgspec.Struct, frozen=True, tag="removed"):
    """An instance was erased or purged, or moved to another application."""

    cursor: int
    instance_id: str


class KpisMessage(Kpis, frozen=True, tag="kpis"):
    """The KPIs of an application, as new as `cursor`."""

    cursor: int = 0


class ResyncMessage(msgspec.Struct, frozen=True, tag="resync"):
    """The server cannot continue from the requested cursor."""

    reason: str = ""


Message = HelloMessage | InstanceMessage | RemovedMessage | KpisMessage | ResyncMessage
MESSAGE_TYPES = frozenset({"hello", "instance", "removed", "kpis", "resync"})


def decode_message(text: bytes | str, sanitize: Sanitizer = keep_unchanged) -> Message | None:
    """One message of the feed, or None for a type that a newer server added. Raises InvalidResponseError."""
    plain: Message | None = decode_plain(text, Message, sanitize)
    if plain is not None:
        return plain
    members: dict[str, Any] = decode(text, dict[str, Any], sanitize)
    message_type = members.get("type")
    if not isinstance(message_type, str) or message_type not in MESSAGE_TYPES:
        return None
    try:
        message: Message = msgspec.convert(members, Message)
    except msgspec.ValidationError as error:
        raise InvalidResponseError(f"the feed sent an invalid message: {error}") from error
    return message
