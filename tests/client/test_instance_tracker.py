"""In any order of pages and messages, a subscriber that applies what the tracker accepts has the server's state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_client import Instance, TooManyInstancesError, instance_tracker
from shm_client.instance_tracker import EVICTION_SLACK, InstanceTracker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_instance(name: str, value: int, app: str = "ledger") -> Instance:
    """An active instance whose only metric is `value`."""
    return Instance(name, "active", app_slug=app, metrics={"value": value})


def make_seen_instance(name: str, age_s: float | None) -> Instance:
    """An instance last seen `age_s` seconds ago, or never."""
    return Instance(name, "active", last_seen_at=None if age_s is None else NOW - timedelta(seconds=age_s))


class Subscriber:
    """A dict to which each accepted change is applied, as a feed reports it."""

    def __init__(self) -> None:
        self.tracker = InstanceTracker()
        self.values: dict[str, int] = {}

    def update(self, name: str, value: int, cursor: int) -> None:
        if self.tracker.update(make_instance(name, value), cursor):
            self.values[name] = value

    def remove(self, name: str, cursor: int) -> None:
        if self.tracker.remove(name, cursor):
            del self.values[name]

    def end_list(self) -> None:
        has_outdated = self.tracker.has_outdated()
        vanished = self.tracker.end_list()
        assert has_outdated or not vanished
        assert not self.tracker.has_outdated()
        for name in vanished:
            del self.values[name]


@pytest.fixture
def subscriber() -> Subscriber:
    """A subscriber whose list has begun."""
    subscriber = Subscriber()
    subscriber.tracker.begin_list()
    return subscriber


def test_a_page_older_than_a_message_changes_nothing(subscriber: Subscriber) -> None:
    subscriber.update("a", 10, 5)
    subscriber.update("b", 20, 6)
    subscriber.update("b", 1, 5)
    subscriber.end_list()
    assert subscriber.values == {"a": 10, "b": 20}


def test_a_repeated_message_is_not_accepted(subscriber: Subscriber) -> None:
    assert subscriber.tracker.update(make_instance("a", 1), 5)
    assert not subscriber.tracker.update(make_instance("a", 1), 5)
    assert subscriber.tracker.remove("a", 6)
    assert not subscriber.tracker.remove("a", 6)
    assert not subscriber.tracker.remove("unknown", 7)


def test_an_older_page_does_not_restore_a_removed_instance(subscriber: Subscriber) -> None:
    subscriber.remove("a", 6)
    subscriber.update("a", 1, 5)
    subscriber.end_list()
    assert subscriber.values == {}


def test_an_instance_that_returns_after_its_removal_is_kept(subscriber: Subscriber) -> None:
    subscriber.remove("a", 6)
    subscriber.update("a", 1, 7)
    subscriber.update("b", 1, 9)
    subscriber.remove("b", 8)
    subscriber.end_list()
    assert subscriber.values == {"a": 1, "b": 1}


def test_unlisted_instances_are_removed_at_the_end_of_the_list(subscriber: Subscriber) -> None:
    for cursor, name in enumerate("abc", 1):
        subscriber.update(name, cursor, cursor)
    subscriber.end_list()
    subscriber.tracker.begin_list()
    subscriber.update("a", 1, 9)
    subscriber.update("c", 4, 10)
    assert subscriber.values.keys() == {"a", "b", "c"}
    subscriber.end_list()
    assert subscriber.values == {"a": 1, "c": 4}


def test_a_new_list_overrides_larger_cursors(subscriber: Subscriber) -> None:
    """The cursors of a restored database start again at a smaller number."""
    for name in "abc":
        subscriber.update(name, 1, 1)
    subscriber.end_list()
    subscriber.update("b", 2, 1_000_000)
    subscriber.remove("c", 1_000_001)
    subscriber.tracker.begin_list()
    for name in "abc":
        subscriber.update(name, 5, 3)
    subscriber.end_list()
    subscriber.update("b", 6, 4)
    assert subscriber.values == {"a": 5, "b": 6, "c": 5}


def test_the_application_is_known_until_the_instance_is_removed(subscriber: Subscriber) -> None:
    subscriber.tracker.update(make_instance("a", 1, "kiosk"), 1)
    assert subscriber.tracker.application_slug("a") == "kiosk"
    subscriber.tracker.remove("a", 2)
    subscriber.tracker.end_list()
    assert subscriber.tracker.application_slug("a") is None


def test_the_longest_unseen_instances_are_evicted_in_bulk() -> None:
    tracker = InstanceTracker(newest=10)
    tracker.begin_list()
    for age_s in range(10 + EVICTION_SLACK):
        tracker.update(make_seen_instance(f"i{age_s}", age_s), 1)
    tracker.update(make_seen_instance("never", None), 1)
    assert tracker.evict_oldest() == []  # not during a list, which could return an older instance
    tracker.end_list()
    assert set(tracker.evict_oldest()) == {f"i{age_s}" for age_s in range(10, 10 + EVICTION_SLACK)} | {"never"}
    assert tracker.evict_oldest() == []
    tracker.update(make_seen_instance("another", 0), 2)
    assert tracker.evict_oldest() == []


def test_too_many_instances_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_tracker, "MAX_INSTANCES", 3)
    tracker = InstanceTracker()
    tracker.begin_list()
    for name in "abc":
        tracker.update(make_instance(name, 1), 1)
    tracker.update(make_instance("a", 2), 2)
    with pytest.raises(TooManyInstancesError, match="more than 3 instances"):
        tracker.update(make_instance("d", 1), 3)
    with pytest.raises(TooManyInstancesError, match="more than 3 instances"):
        tracker.remove("e", 3)


@dataclass
class ServerModel:
    """A database that counts its changes, a list in pages of two, and a feed of newest states."""

    subscriber: Subscriber = field(default_factory=Subscriber)
    cursor: int = 0
    states: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # cursor, and value or None if removed
    sent_cursor: int = 0
    next_name: int = 0
    page_in_flight: tuple[int, dict[str, int]] | None = None

    def change(self, name: str, value: int | None) -> None:
        self.cursor += 1
        self.states[name] = (self.cursor, value)

    def begin_list(self) -> None:
        self.next_name, self.page_in_flight = 0, None
        self.read_page()
        self.sent_cursor = self.cursor
        self.subscriber.tracker.begin_list()
        self.deliver_page()

    def read_page(self) -> None:
        """The database reads the next page, if no other is on its way."""
        if self.page_in_flight is None and self.next_name < len(NAMES):
            names = NAMES[self.next_name : self.next_name + 2]
            self.next_name += 2
            values = {name: self.states[name][1] for name in names if name in self.states}
            self.page_in_flight = (self.cursor, {name: value for name, value in values.items() if value is not None})

    def deliver_page(self) -> None:
        """The page that was read arrives at the subscriber."""
        if self.page_in_flight is None:
            return
        cursor, page = self.page_in_flight
        self.page_in_flight = None
        for name, value in page.items():
            self.subscriber.update(name, value, cursor)
        if self.next_name >= len(NAMES):
            self.subscriber.end_list()

    def send_message(self) -> bool:
        """The feed sends its next message. Returns whether there was one."""
        unsent = [(cursor, name, value) for name, (cursor, value) in self.states.items() if cursor > self.sent_cursor]
        if not unsent:
            return False
        self.sent_cursor, name, value = min(unsent)
        if value is None:
            self.subscriber.remove(name, self.sent_cursor)
        else:
            self.subscriber.update(name, value, self.sent_cursor)
        return True

    def restore(self, from_backup: bool) -> None:
        """The database is restored or recreated: its cursor restarts, and the subscriber lists again."""
        values = {name: value for name, (_, value) in self.states.items() if value is not None} if from_backup else {}
        self.cursor, self.states = 0, {}
        for name, value in values.items():
            self.change(name, value + 1000)
        self.begin_list()


NAMES = "abcdefg"
steps: st.SearchStrategy[Callable[[ServerModel], Any]] = st.one_of(
    st.builds(
        lambda name, value: lambda s: s.change(name, value), st.sampled_from(NAMES), st.none() | st.integers(0, 9)
    ),
    st.builds(lambda name, value: lambda s: s.change(name, value), st.sampled_from(NAMES), st.integers(0, 9)),
    st.sampled_from(
        [
            ServerModel.read_page,
            ServerModel.deliver_page,
            ServerModel.send_message,
            ServerModel.send_message,
            ServerModel.begin_list,
        ]
    ),
    st.booleans().map(lambda from_backup: lambda s: s.restore(from_backup)),
)


@pytest.mark.parametrize(
    "max_examples", [pytest.param(100, id="short"), pytest.param(2000, id="long", marks=pytest.mark.long)]
)
def test_list_then_watch_ends_in_the_servers_state(max_examples: int) -> None:
    @settings(max_examples=max_examples)
    @given(st.lists(steps, min_size=8, max_size=60))
    def check_script(history: list[Callable[[ServerModel], Any]]) -> None:
        server = ServerModel()
        server.begin_list()
        for step in history:
            step(server)
        while server.next_name < len(NAMES) or server.page_in_flight is not None:
            server.read_page()
            server.deliver_page()
        while server.send_message():
            pass
        assert server.subscriber.values == {
            name: value for name, (_, value) in server.states.items() if value is not None
        }

    check_script()
