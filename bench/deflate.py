"""What permessage-deflate would do for the feed: bytes and processor time for each of its messages, three ways.

With no context taken over, each message stands alone, and one compression serves all subscribers. With context, each
subscriber has a compressor of its own, that has seen what it was told.
"""

import random
import re
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.report import Table, say

LEVELS = (1, 6)  # the fastest, and Tornado's
MEM_LEVEL = 8  # Tornado's
CONTEXT_KIB = ((1 << (zlib.MAX_WBITS + 2)) + (1 << (MEM_LEVEL + 9))) / 1024  # as zlib's manual has it
TAIL = b"\0\0\xff\xff"  # of a flush, which the protocol leaves out
DIGITS = re.compile(rb"\d+")
METRICS = b'"metrics":'
COLUMNS = (("", 38), ("bytes", 6), ("us each", 8), ("inflate", 8), ("MB/s", 7), ("cores", 7), ("MiB held", 9))


@dataclass(frozen=True, slots=True)
class Deflated:
    """For each message."""

    octets: float
    us: float
    inflate_us: float


def say_deflate(messages: Sequence[bytes], subscribers: int, rate: float) -> float:
    """The table; returns the bytes of a message that was deflated alone at Tornado's level, its numbers made up."""
    say(
        f"\npermessage-deflate, {len(messages):,} messages as the feed told them; MB/s, cores and memory at "
        f"{subscribers:,} subscribers\nand {rate:,.0f} messages a second, with one compression for all, "
        "or with context one for each"
    )
    table = Table(*COLUMNS)
    alone = 0.0
    for named, said in (("", messages), (", numbers made up", _made_up(messages))):
        plain = _measured(said, bytes, bytes)
        _row(table, f"plain{named}", plain, subscribers, rate, compressors=0)
        for level in LEVELS:
            shared = _measured(said, partial(_deflated_alone, level), _inflated_alone)
            _row(table, f"level {level}, alone{named}", shared, subscribers, rate, compressors=1)
            alone = shared.octets
        for level in LEVELS:
            kept, seen = _compressor(level), zlib.decompressobj(-zlib.MAX_WBITS)
            own = _measured(said, partial(_deflated, kept), partial(_inflated, seen))
            _row(table, f"level {level}, with context{named}", own, subscribers, rate, compressors=subscribers)
    say(
        "installs of the bench say the same but for their counter; where numbers are made up, each number of each "
        "message\nis at random, with as many digits as it had: a real fleet lies between the two\n"
    )
    return alone


def _row(table: Table, name: str, each: Deflated, subscribers: int, rate: float, compressors: int) -> None:
    cores = each.us * rate * max(1, compressors) / 1e6
    held = CONTEXT_KIB / 1024 * (compressors if compressors > 1 else 0)
    table.row(
        *(name, f"{each.octets:,.0f}", f"{each.us:.2f}", f"{each.inflate_us:.2f}"),
        *(f"{each.octets * rate * subscribers / 1e6:,.0f}", f"{cores:,.2f}", f"{held:,.0f}"),
    )


def _measured(
    messages: Sequence[bytes], deflate: Callable[[bytes], bytes], inflate: Callable[[bytes], bytes]
) -> Deflated:
    """Framed as the feed would frame it; what was deflated must inflate to what it was."""
    begins = time.process_time()
    deflated = [deflate(message) for message in messages]
    frames = [_framed(each) for each in deflated]
    took = time.process_time() - begins
    begins = time.process_time()
    inflated = [inflate(each) for each in deflated]
    inflating = time.process_time() - begins
    assert inflated == list(messages), "deflating lost something"
    octets = sum(len(frame) for frame in frames)
    return Deflated(octets / len(messages), took / len(messages) * 1e6, inflating / len(messages) * 1e6)


def _compressor(level: int) -> "zlib._Compress":
    return zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, MEM_LEVEL)


def _deflated(compressor: "zlib._Compress", message: bytes) -> bytes:
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def _deflated_alone(level: int, message: bytes) -> bytes:
    return _deflated(_compressor(level), message)


def _inflated(decompressor: "zlib._Decompress", deflated: bytes) -> bytes:
    return decompressor.decompress(deflated + TAIL)


def _inflated_alone(deflated: bytes) -> bytes:
    return _inflated(zlib.decompressobj(-zlib.MAX_WBITS), deflated)


def _framed(payload: bytes) -> bytes:
    if len(payload) < 126:
        return bytes((0xC1, len(payload))) + payload
    return struct.pack("!BBH", 0xC1, 126, len(payload)) + payload


def _made_up(messages: Sequence[bytes]) -> list[bytes]:
    """Every number among the metrics replaced, the same ones in every run of the bench."""
    chance = random.Random(1)

    def another(found: re.Match[bytes]) -> bytes:
        digits = len(found[0])
        return str(chance.randrange(10 ** (digits - 1), 10**digits)).encode()

    changed = []
    for message in messages:
        head, key, rest = message.partition(METRICS)
        metrics, closed, tail = rest.rpartition(b"}," if b"}," in rest else b"}")
        changed.append(head + key + DIGITS.sub(another, metrics) + closed + tail)
    return changed
