"""The bench of the feed measures what it says: every frame is counted, and what never came is no figure."""

import math
import socket
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from bench.feed.feed_run import SAMPLE, accounted, run_the_floor, waits
from bench.feed.sender import Sent
from bench.feed.subscribers import PONG, Hall, Reader, Told
from bench.support.errors import Fault

CHECKOUT = Path(__file__).parent.parent.parent
EXAMPLE = b'{"type":"instance","cursor":1,"instance":{"metrics":{"invoices_sent": 1, "plan": "team"}}}'
LIMIT_S = 10


def test_the_quick_bench_says_every_row_and_every_aim(open_folder: Path) -> None:
    shape = ("--subscribers", "1,4", "--rates", "20", "--unread", "2", "--seconds", "1", "--folder", str(open_folder))
    done = subprocess.run(
        [sys.executable, "-m", "bench.feed", "--quick", *shape],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    for row, times in (("0  ", 2), ("1  ", 1), ("4  ", 2), ("4 + 2 unread  ", 2)):  # with one worker, and with two
        assert sum(line.startswith(row) for line in lines) == times, row
    assert sum(line.startswith("the floor  ") for line in lines) == 2
    assert sum(line.startswith(("met ", "not met ")) for line in lines) == 6
    assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("readers", [1, 2 * SAMPLE + 1])
def test_subscribers_count_every_message_and_the_sample_notes_each(readers: int) -> None:
    run = run_the_floor(EXAMPLE, 40, 1, readers)
    assert (run.sent.acknowledged, run.told.behind, run.told.closed) == (40, 0, 0)
    assert len(run.told.notes) == min(SAMPLE, readers)
    for noted in run.told.notes:
        assert list(noted[::2]) == list(range(41))  # with the one that is sent last
    assert run.told.messages == pytest.approx(41 * readers, rel=0.01)
    assert len(run.waits) == 40 * len(run.told.notes)


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_frames_of_every_length_are_told_apart_however_they_are_cut(piece: int) -> None:
    texts = [
        b'{"type":"hello","cursor":4,"heartbeat_s":15}',
        _padded(b'{"cursor":5,"invoices_sent":17,"', 400),
        _padded(b'{"cursor":6,"invoices_sent":18,"', 70_000),
        b'{"cursor":7,"app":"bench"}',
    ]
    stream = b"".join([_framed(texts[0]), b"\x89\0", *(_framed(text) for text in texts[1:])])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LIMIT_S)
        theirs.settimeout(LIMIT_S)
        hall, reader = Hall(), Reader(ours, b"", array("q"))
        for at in range(0, len(stream), piece):
            theirs.sendall(stream[at : at + piece])
            while reader.octets < min(at + piece, len(stream)):
                hall.read(reader)
        assert theirs.recv(100) == PONG
    assert (reader.messages, reader.octets, reader.cursor, reader.part) == (4, len(stream), 7, b"")
    assert reader.notes is not None
    assert list(reader.notes[::2]) == [17, 18]


def test_a_snapshot_is_told_when_a_newer_one_of_its_install_is() -> None:
    acknowledged = array("q", [0, 1_000_000, 1, 1_000_000, 2, 2_000_000])  # of two installs
    told = array("q", [1, 3_000_000, 2, 5_000_000])
    assert waits(acknowledged, [told], installs=2) == [2.0, 3.0, 4.0]


def test_what_a_subscriber_was_never_told_is_no_figure_unless_it_is_said_that_it_was_behind() -> None:
    sent = Sent(0, 10_000_000, array("q", [0, 1_000_000, 1, 1_000_000]), array("q"))
    told = array("q", [0, 3_000_000])
    with pytest.raises(Fault, match="not told of every snapshot"):
        accounted(sent, _told(told, behind=0), 2, {})
    assert accounted(sent, _told(told, behind=1), 2, {}).waits == [2.0, math.inf]


def _told(notes: "array[int]", behind: int) -> Told:
    return Told(
        messages=1, octets=len(EXAMPLE), behind=behind, closed=0, by_ns=20_000_000, notes=[notes], example=EXAMPLE
    )


def _padded(start: bytes, length: int) -> bytes:
    return start + b"x" * (length - len(start) - 2) + b'"}'


def _framed(payload: bytes) -> bytes:
    """As a server writes it."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    if len(payload) < 2**16:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload
