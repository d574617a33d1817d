"""From any position in the change buffer, the frames after it lead a reader to the true state."""

import asyncio
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.analytics.counts import InstanceCounts
from shm.analytics.instances import Instance
from shm.analytics.kpis import ApplicationKpis
from shm.feed import change_buffer
from shm.feed.change_buffer import ChangeBuffer
from shm.feed.changes import Change, ChangeKind, ChangePage

APPS = ("ledger", "kiosk")
INSTALLS = ("a", "b", "c")
NOW = datetime.now(UTC)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(INSTALLS), st.sampled_from(APPS)),
        st.tuples(st.just("remove"), st.sampled_from(INSTALLS), st.none()),
        st.tuples(st.just("kpis"), st.none(), st.sampled_from(APPS)),
        st.tuples(st.just("look"), st.none(), st.none()),
        st.tuples(st.just("read"), st.integers(0, len(APPS)), st.none()),
    ),
    min_size=20,
    max_size=80,
)


@dataclass
class Reader:
    """A subscriber that reads when it is told to, and what it knows."""

    app: str | None
    position: int | None = 0
    knows: dict[str, int] = field(default_factory=dict)  # the newest cursor, by instance
    figures: dict[str, int] = field(default_factory=dict)

    def read(self, buffer: ChangeBuffer, truth: dict[str, tuple[str, int]]) -> bool:
        """One chunk, or all anew from the truth where its place is gone; whether there was anything."""
        if self.position == buffer.position:
            return False
        chunk = None if self.position is None else buffer.next_chunk(self.position, self.app)
        if chunk is None:
            self.knows = {name: cursor for name, (app, cursor) in truth.items() if self.app in {None, app}}
            self.position = buffer.position_of(buffer.start_cursor)
            assert self.position is not None
            return True
        for message in messages(chunk.frames):
            self.apply(message)
        self.position = chunk.position
        return True

    def apply(self, message: dict[str, Any]) -> None:
        """As docs/feed.md says."""
        if message["type"] == "instance":
            assert self.app in {None, message["instance"]["app_slug"]}
            self.knows[message["instance"]["instance_id"]] = message["cursor"]
        elif message["type"] == "removed":
            self.knows.pop(message["instance_id"], None)
        else:
            assert self.app in {None, message["app"]}
            self.figures[message["app"]] = message["active_window_s"]


@pytest.mark.parametrize("most_bytes", [1_000, 4_000, 10**6])
@given(steps=steps)
def test_whoever_reads_whenever_knows_what_is_true(most_bytes: int, steps: list[tuple[str, Any, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change_buffer, "MAX_BUFFER_BYTES", most_bytes)
        patch.setattr(change_buffer, "MAX_CHUNK_BYTES", 600)
        asyncio.run(hold(steps))


async def hold(steps: list[tuple[str, Any, Any]]) -> None:
    """Does the steps, and then lets everybody read to the end."""
    buffer = ChangeBuffer(0)
    truth: dict[str, tuple[str, int]] = {}
    readers = [Reader(app) for app in (None, *APPS)]
    cursor, told, kpis_to_republish = 0, dict.fromkeys(APPS, 0), set[str]()
    for number, (step, one, app) in enumerate([*steps, ("look", None, None)], 1):
        found: list[Change] = []
        if step == "put":
            if one in truth and truth[one][0] != app:
                cursor += 1
                found.append(Change(ChangeKind.LEFT, cursor, truth[one][0], one, None))
            cursor += 1
            truth[one] = app, cursor
            found.append(Change(ChangeKind.INSTANCE, cursor, app, one, item(one, app)))
        elif step == "remove" and one in truth:
            cursor += 1
            found.append(Change(ChangeKind.REMOVED, cursor, truth.pop(one)[0], one, None))
        elif step == "kpis":
            told[app] = number
            buffer.add_kpis(cursor, kpis(app, number), 0.0)
            kpis_to_republish.discard(app)
        elif step == "read":
            readers[one].read(buffer, truth)
        if found:
            buffer.add(ChangePage(cursor, cursor, 0, found, 500), 0.0)
        if step == "look":
            buffer.announce()
            kpis_to_republish |= buffer.kpis_to_republish
            buffer.kpis_to_republish.clear()
    for reader in readers:
        while reader.read(buffer, truth):
            pass
        wanted = {name: cursor for name, (app, cursor) in truth.items() if reader.app in {None, app}}
        assert reader.knows == wanted
        for app in APPS if reader.app is None else (reader.app,):
            assert reader.figures.get(app, 0) == told[app] or app in kpis_to_republish


def messages(frames: bytes) -> Iterator[dict[str, Any]]:
    """The messages of some whole frames."""
    while frames:
        kind, length, begins = frames[0], frames[1], 2
        assert kind == 0x81
        if length == 126:
            (length,), begins = struct.unpack_from("!H", frames, 2), 4
        elif length == 127:
            (length,), begins = struct.unpack_from("!Q", frames, 2), 10
        yield json.loads(frames[begins : begins + length])
        frames = frames[begins + length :]


def item(name: str, app: str) -> Instance:
    """An instance of that application."""
    return Instance(name, app, app, "1", "production", "active", NOW, "docker", {}, "linux/amd64", NOW, NOW, True, "1")  # type: ignore[arg-type]


def kpis(app: str, number: int) -> ApplicationKpis:
    """KPIs that can be told from others by a number."""
    return ApplicationKpis(app, app, NOW, None, number, InstanceCounts(), [], [], [])
