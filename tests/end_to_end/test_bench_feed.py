"""The feed bench counts each frame, and a missing snapshot makes a run invalid."""

import math
import socket
import struct
from array import array
from pathlib import Path

import pytest

from bench.feed.feed_run import SAMPLE_SIZE, delivery_latencies, measure_baseline, summarize
from bench.feed.sender import SendResult
from bench.feed.subscribers import PONG, ReadBuffer, Reader, ReceiveResult
from bench.support.errors import InvalidRun
from tests.support.bench_program import run_bench

EXAMPLE = b'{"type":"instance","cursor":1,"instance":{"metrics":{"invoices_sent": 1, "plan": "team"}}}'
TIMEOUT_S = 60


@pytest.mark.long
def test_the_quick_feed_bench_prints_each_row_and_target(postgres_dir: Path) -> None:
    shape = ("--subscribers", "1,4", "--rates", "20", "--stalled", "2", "--seconds", "1")
    output = run_bench("feed", postgres_dir, "--quick", *shape)
    lines = [line.strip() for line in output.splitlines()]
    for row, times in (("0  ", 2), ("1  ", 1), ("4  ", 2), ("4 + 2 stalled  ", 2)):  # with one worker, and with two
        assert sum(line.startswith(row) for line in lines) == times, row
    assert sum(line.startswith("baseline  ") for line in lines) == 2
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 6


@pytest.mark.parametrize("readers", [1, 2 * SAMPLE_SIZE + 1])
def test_subscribers_count_messages_and_the_sample_records_each(readers: int) -> None:
    run = measure_baseline(EXAMPLE, 40, 1, readers)
    assert (run.sent.acknowledged, run.received.behind, run.received.closed) == (40, 0, 0)
    assert len(run.received.arrivals) == min(SAMPLE_SIZE, readers)
    for arrivals in run.received.arrivals:
        assert list(arrivals[::2]) == list(range(41))  # including the last one
    assert run.received.messages == pytest.approx(41 * readers, rel=0.01)
    assert len(run.latencies_ms) == 40 * len(run.received.arrivals)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100_000])
def test_frames_of_any_length_and_split_are_separated(chunk_bytes: int) -> None:
    texts = [
        b'{"type":"hello","cursor":4,"heartbeat_s":15}',
        _pad(b'{"cursor":5,"invoices_sent":17,"', 400),
        _pad(b'{"cursor":6,"invoices_sent":18,"', 70_000),
        b'{"cursor":7,"app":"bench"}',
    ]
    stream = b"".join([_encode_frame(texts[0]), b"\x89\0", *(_encode_frame(text) for text in texts[1:])])
    client_socket, server_socket = socket.socketpair()
    with client_socket, server_socket:
        client_socket.settimeout(TIMEOUT_S)
        server_socket.settimeout(TIMEOUT_S)
        buffer, reader = ReadBuffer(), Reader(client_socket, b"", array("q"))
        for at in range(0, len(stream), chunk_bytes):
            server_socket.sendall(stream[at : at + chunk_bytes])
            while reader.bytes_read < min(at + chunk_bytes, len(stream)):
                buffer.read(reader)
        assert server_socket.recv(100) == PONG
    assert (reader.messages, reader.bytes_read, reader.cursor, reader.partial) == (4, len(stream), 7, b"")
    assert reader.arrivals is not None
    assert list(reader.arrivals[::2]) == [17, 18]


def test_a_newer_snapshot_of_the_install_counts_as_delivery() -> None:
    acknowledged = array("q", [0, 1_000_000, 1, 1_000_000, 2, 2_000_000])  # of two installs
    received = array("q", [1, 3_000_000, 2, 5_000_000])
    assert delivery_latencies(acknowledged, [received], installs=2) == [2.0, 3.0, 4.0]


def test_a_missing_snapshot_is_invalid_unless_reader_is_behind() -> None:
    sent = SendResult(0, 10_000_000, array("q", [0, 1_000_000, 1, 1_000_000]), array("q"))
    received = array("q", [0, 3_000_000])
    with pytest.raises(InvalidRun, match="did not receive every snapshot"):
        summarize(sent, _received(received, behind=0), 2, {})
    assert summarize(sent, _received(received, behind=1), 2, {}).latencies_ms == [2.0, math.inf]


def _received(arrivals: "array[int]", behind: int) -> ReceiveResult:
    return ReceiveResult(
        messages=1,
        bytes_read=len(EXAMPLE),
        behind=behind,
        closed=0,
        ended_ns=20_000_000,
        arrivals=[arrivals],
        example=EXAMPLE,
    )


def _pad(start: bytes, length: int) -> bytes:
    return start + b"x" * (length - len(start) - 2) + b'"}'


def _encode_frame(payload: bytes) -> bytes:
    """A text frame as a server sends it."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    if len(payload) < 2**16:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload
