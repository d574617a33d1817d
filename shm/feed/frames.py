"""What the feed tells, as the websocket frames that carry it: encoded once, however many subscribers they go to."""

import struct

import msgspec

from shm.analytics.instances import Instance
from shm.analytics.kpis import ApplicationKpis

TEXT = 0x81  # a whole message of text
SHORT, LONG = 126, 127  # lengths from 126 on are said in the two or eight bytes behind

_encoder = msgspec.json.Encoder(decimal_format="number")


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """The first message."""

    cursor: int
    heartbeat_s: int


class InstanceChanged(msgspec.Struct, tag_field="type", tag="instance"):
    """An instance's newest state."""

    cursor: int
    instance: Instance


class InstanceRemoved(msgspec.Struct, tag_field="type", tag="removed"):
    """An instance is not among those that were asked for any more."""

    cursor: int
    instance_id: str


class Resync(msgspec.Struct, tag_field="type", tag="resync"):
    """The cursor leads nowhere: list again."""

    reason: str


def encode_frame(message: Hello | InstanceChanged | InstanceRemoved | Resync) -> bytes:
    """A message as a frame from a server: unmasked, so it is the same for everybody."""
    return _frame(_encoder.encode(message))


def encode_kpis_frame(cursor: int, kpis: ApplicationKpis) -> bytes:
    """An application's whole set of KPIs, where what is told of instances goes up to `cursor`."""
    return _frame(_encoder.encode({"type": "kpis", "cursor": cursor} | msgspec.structs.asdict(kpis)))


def _frame(text: bytes) -> bytes:
    length = len(text)
    if length < SHORT:
        return struct.pack("!BB", TEXT, length) + text
    if length < 1 << 16:
        return struct.pack("!BBH", TEXT, SHORT, length) + text
    return struct.pack("!BBQ", TEXT, LONG, length) + text
