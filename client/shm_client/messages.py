"""The messages of the change feed, as they come over the websocket. docs/feed.md tells what each means."""

from typing import Any

import msgspec

from .errors import AnswerError
from .model import Border, Instance, Kpis, as_it_is, decode


class HelloMessage(msgspec.Struct, frozen=True, tag="hello"):
    cursor: int


class InstanceMessage(msgspec.Struct, frozen=True, tag="instance"):
    cursor: int
    instance: Instance


class RemovedMessage(msgspec.Struct, frozen=True, tag="removed"):
    cursor: int
    instance_id: str


class KpisMessage(Kpis, frozen=True, tag="kpis"):
    cursor: int = 0


class ResyncMessage(msgspec.Struct, frozen=True, tag="resync"):
    reason: str = ""


Message = HelloMessage | InstanceMessage | RemovedMessage | KpisMessage | ResyncMessage
TYPES = frozenset({"hello", "instance", "removed", "kpis", "resync"})


def decode_message(text: bytes | str, border: Border = as_it_is) -> Message | None:
    """One message of the feed, or None for a type that a newer server added."""
    peek: dict[str, Any] = decode(text, dict[str, Any], border)
    kind = peek.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return None
    try:
        message: Message = msgspec.convert(peek, Message)
    except msgspec.ValidationError as error:
        raise AnswerError(f"the feed's message is not what SHM says: {error}") from error
    return message
