"""From any offset in the change buffer, the frames after it lead a reader to the true state."""

import asyncio
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.analytics.counts import InstanceCounts
from shm.analytics.instance_fields import Instance
from shm.analytics.kpis import AggregatedKeys, ApplicationKpis
from shm.feed import change_buffer
from shm.feed.change_buffer import ChangeBuffer
from shm.feed.changes import Change, ChangeKind, ChangePage

APPS = ("ledger", "kiosk")
INSTALLS = ("a", "b", "c")
NOW = datetime.now(UTC)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.sampled_from(INSTALLS), st.sampled_from(APPS)),
        st.tuples(st.just("remove"), st.sampled_from(INSTALLS), st.none()),
        st.tuples(st.just("kpis"), st.none(), st.sampled_from(APPS)),
        st.tuples(st.just("wake_subscribers"), st.none(), st.none()),
        st.tuples(st.just("read"), st.integers(0, len(APPS)), st.none()),
    ),
    min_size=20,
    max_size=80,
)


@dataclass
class Reader:
    """A subscriber that reads in the steps for it, and its state."""

    app: str | None
    offset: int | None = 0
    cursors: dict[str, int] = field(default_factory=dict)  # the newest cursor, by instance
    kpis: dict[str, int] = field(default_factory=dict)

    def read(self, buffer: ChangeBuffer, truth: dict[str, tuple[str, int]]) -> bool:
        """Reads a chunk, or lists again if its offset was dropped. Returns whether there was anything to read."""
        if self.offset == buffer.end_offset:
            return False
        chunk = None if self.offset is None else buffer.next_chunk(self.offset, self.app)
        if chunk is None:
            self.cursors = {name: cursor for name, (app, cursor) in truth.items() if self.app in {None, app}}
            self.offset = buffer.offset_of(buffer.start_cursor)
            assert self.offset is not None
            return True
        for message in messages(chunk.frames):
            self.apply(message)
        self.offset = chunk.end_offset
        return True

    def apply(self, message: dict[str, Any]) -> None:
        """Applies a message as docs/feed.md describes."""
        if message["type"] == "instance":
            assert self.app in {None, message["instance"]["app_slug"]}
            self.cursors[message["instance"]["instance_id"]] = message["cursor"]
        elif message["type"] == "removed":
            self.cursors.pop(message["instance_id"], None)
        else:
            assert self.app in {None, message["app"]}
            self.kpis[message["app"]] = message["active_window_s"]


@pytest.mark.parametrize(
    "max_examples", [pytest.param(30, id="short"), pytest.param(2000, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("max_bytes", [1_000, 4_000, 10**6])
def test_a_reader_at_any_pace_reaches_the_true_state(max_bytes: int, max_examples: int) -> None:
    @settings(max_examples=max_examples)
    @given(steps=steps)
    def check_reader(steps: list[tuple[str, Any, Any]]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(change_buffer, "MAX_BUFFER_BYTES", max_bytes)
            patch.setattr(change_buffer, "MAX_CHUNK_BYTES", 600)
            asyncio.run(check_steps(steps))

    check_reader()


async def check_steps(steps: list[tuple[str, Any, Any]]) -> None:
    """Executes the steps, lets all readers read to the end, and compares their state with the truth."""
    buffer = ChangeBuffer(0)
    truth: dict[str, tuple[str, int]] = {}
    readers = [Reader(app) for app in (None, *APPS)]
    cursor, sent_kpis, kpis_to_republish = 0, dict.fromkeys(APPS, 0), set[str]()
    for number, (step, target, app) in enumerate([*steps, ("wake_subscribers", None, None)], 1):
        found: list[Change] = []
        if step == "update":
            if target in truth and truth[target][0] != app:
                cursor += 1
                found.append(Change(ChangeKind.LEFT, cursor, truth[target][0], target, None))
            cursor += 1
            truth[target] = app, cursor
            found.append(Change(ChangeKind.INSTANCE, cursor, app, target, make_instance(target, app)))
        elif step == "remove" and target in truth:
            cursor += 1
            found.append(Change(ChangeKind.REMOVED, cursor, truth.pop(target)[0], target, None))
        elif step == "kpis":
            sent_kpis[app] = number
            buffer.add_kpis(cursor, make_kpis(app, number), 0.0)
            kpis_to_republish.discard(app)
        elif step == "read":
            readers[target].read(buffer, truth)
        if found:
            buffer.add(ChangePage(cursor, cursor, 0, found, 500), 0.0)
        if step == "wake_subscribers":
            buffer.wake_subscribers()
            kpis_to_republish |= buffer.kpis_to_republish
            buffer.kpis_to_republish.clear()
    for reader in readers:
        while reader.read(buffer, truth):
            pass
        expected = {name: cursor for name, (app, cursor) in truth.items() if reader.app in {None, app}}
        assert reader.cursors == expected
        for app in APPS if reader.app is None else (reader.app,):
            assert reader.kpis.get(app, 0) == sent_kpis[app] or app in kpis_to_republish


def messages(frames: bytes) -> Iterator[dict[str, Any]]:
    """The messages in complete frames."""
    while frames:
        opcode, length, start = frames[0], frames[1], 2
        assert opcode == 0x81
        if length == 126:
            (length,), start = struct.unpack_from("!H", frames, 2), 4
        elif length == 127:
            (length,), start = struct.unpack_from("!Q", frames, 2), 10
        yield json.loads(frames[start : start + length])
        frames = frames[start + length :]


def make_instance(name: str, app: str) -> Instance:
    """An instance of that application."""
    fields: dict[str, Any] = dict.fromkeys(Instance.__struct_fields__)
    return Instance(**fields | {"instance_id": name, "app_name": app, "app_slug": app, "metrics": {}})


def make_kpis(app: str, number: int) -> ApplicationKpis:
    """KPIs that are identified by a number."""
    return ApplicationKpis(app, app, NOW, None, number, InstanceCounts(), 0, [], [], [], AggregatedKeys(0, 1_000, None))
