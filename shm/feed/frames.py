"""The feed's messages as websocket frames. A frame is encoded once for all subscribers."""

import struct

import msgspec

from shm.analytics.instance_fields import Instance
from shm.analytics.kpis import ApplicationKpis

TEXT = 0x81  # FIN and opcode 1: a text message in one frame
SHORT, LONG = 126, 127  # markers for a length of 126 or more, which follows in two or eight bytes

_encoder = msgspec.json.Encoder(decimal_format="number")


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """The first message of a feed."""

    cursor: int
    heartbeat_s: int


class InstanceChanged(msgspec.Struct, tag_field="type", tag="instance"):
    """An instance's newest state."""

    cursor: int
    instance: Instance


class InstanceRemoved(msgspec.Struct, tag_field="type", tag="removed"):
    """An instance was deleted, or left the subscribed application."""

    cursor: int
    instance_id: str


class Resync(msgspec.Struct, tag_field="type", tag="resync"):
    """The cursor is not valid: the client must list again."""

    reason: str


def encode_frame(message: Hello | InstanceChanged | InstanceRemoved | Resync) -> bytes:
    """A message as a server's frame. It is unmasked, so it is the same for all subscribers."""
    return _frame(_encoder.encode(message))


def encode_kpis_frame(cursor: int, kpis: ApplicationKpis) -> bytes:
    """An application's whole set of KPIs. The changes of instances up to `cursor` were sent before it."""
    return _frame(_encoder.encode({"type": "kpis", "cursor": cursor} | msgspec.structs.asdict(kpis)))


def _frame(text: bytes) -> bytes:
    length = len(text)
    if length < SHORT:
        return struct.pack("!BB", TEXT, length) + text
    if length < 1 << 16:
        return struct.pack("!BBH", TEXT, SHORT, length) + text
    return struct.pack("!BBQ", TEXT, LONG, length) + text
