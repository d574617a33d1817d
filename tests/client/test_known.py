"""Which news is news: in whatever order pages and messages come, who applies what is let through ends in the truth."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_client import Instance, TooManyInstancesError, known
from shm_client.known import SLACK, Known

thorough = settings(deadline=None, max_examples=400)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sends(name: str, sent: int, app: str = "ledger") -> Instance:
    """An active instance whose only metric is `sent`."""
    return Instance(name, "active", app_slug=app, metrics={"sent": sent})


def seen(name: str, ago: float | None) -> Instance:
    """An instance last seen so many seconds ago."""
    return Instance(name, "active", last_seen_at=None if ago is None else NOW - timedelta(seconds=ago))


class Mirror:
    """What a subscriber holds that applies each news, as a feed would tell it."""

    def __init__(self) -> None:
        self.known = Known()
        self.held: dict[str, int] = {}

    def put(self, name: str, sent: int, cursor: int) -> None:
        if self.known.put(sends(name, sent), cursor):
            self.held[name] = sent

    def remove(self, name: str, cursor: int) -> None:
        if self.known.remove(name, cursor):
            del self.held[name]

    def end(self) -> None:
        missing = self.known.missing()
        vanished = self.known.end()
        assert missing or not vanished
        assert not self.known.missing()
        for name in vanished:
            del self.held[name]


@pytest.fixture
def mirror() -> Mirror:
    """One whose list has begun."""
    mirror = Mirror()
    mirror.known.begin()
    return mirror


def test_a_page_that_was_read_before_the_feed_told_more_changes_nothing(mirror: Mirror) -> None:
    mirror.put("a", 10, 5)
    mirror.put("b", 20, 6)
    mirror.put("b", 1, 5)
    mirror.end()
    assert mirror.held == {"a": 10, "b": 20}


def test_what_is_told_again_is_no_news(mirror: Mirror) -> None:
    assert mirror.known.put(sends("a", 1), 5)
    assert not mirror.known.put(sends("a", 1), 5)
    assert mirror.known.remove("a", 6)
    assert not mirror.known.remove("a", 6)
    assert not mirror.known.remove("never", 7)


def test_an_instance_deleted_while_a_list_is_read_does_not_come_back_by_an_older_page(mirror: Mirror) -> None:
    mirror.remove("a", 6)
    mirror.put("a", 1, 5)
    mirror.end()
    assert mirror.held == {}


def test_an_instance_that_came_back_after_its_deletion_stays(mirror: Mirror) -> None:
    mirror.remove("a", 6)
    mirror.put("a", 1, 7)
    mirror.put("b", 1, 9)
    mirror.remove("b", 8)
    mirror.end()
    assert mirror.held == {"a": 1, "b": 1}


def test_what_a_list_does_not_name_is_gone_at_its_end_and_not_before(mirror: Mirror) -> None:
    for cursor, name in enumerate("abc", 1):
        mirror.put(name, cursor, cursor)
    mirror.end()
    mirror.known.begin()
    mirror.put("a", 1, 9)
    mirror.put("c", 4, 10)
    assert mirror.held.keys() == {"a", "b", "c"}
    mirror.end()
    assert mirror.held == {"a": 1, "c": 4}


def test_a_database_that_counts_from_the_beginning_again_is_believed(mirror: Mirror) -> None:
    for name in "abc":
        mirror.put(name, 1, 1)
    mirror.end()
    mirror.put("b", 2, 1_000_000)
    mirror.remove("c", 1_000_001)
    mirror.known.begin()
    for name in "abc":
        mirror.put(name, 5, 3)
    mirror.end()
    mirror.put("b", 6, 4)
    assert mirror.held == {"a": 5, "b": 6, "c": 5}


def test_the_application_is_remembered_until_the_instance_is_gone(mirror: Mirror) -> None:
    mirror.known.put(sends("a", 1, "kiosk"), 1)
    assert mirror.known.application("a") == "kiosk"
    mirror.known.remove("a", 2)
    mirror.known.end()
    assert mirror.known.application("a") is None


def test_beyond_the_newest_and_some_slack_the_longest_unseen_go_in_bulk() -> None:
    known = Known(newest=10)
    known.begin()
    for age in range(10 + SLACK):
        known.put(seen(f"i{age}", age), 1)
    known.put(seen("never", None), 1)
    assert known.surplus() == []  # not while a list is read, by which something older could come back
    known.end()
    assert set(known.surplus()) == {f"i{age}" for age in range(10, 10 + SLACK)} | {"never"}
    assert known.surplus() == []
    known.put(seen("one more", 0), 2)
    assert known.surplus() == []


def test_more_instances_than_are_kept_track_of_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_INSTANCES", 3)
    all_of_them = Known()
    all_of_them.begin()
    for name in "abc":
        all_of_them.put(sends(name, 1), 1)
    all_of_them.put(sends("a", 2), 2)
    with pytest.raises(TooManyInstancesError, match="more than 3 instances"):
        all_of_them.put(sends("d", 1), 3)
    with pytest.raises(TooManyInstancesError, match="more than 3 instances"):
        all_of_them.remove("e", 3)


@dataclass
class Server:
    """A database that counts its changes, a list in pages of two, and a feed of newest states."""

    mirror: Mirror = field(default_factory=Mirror)
    cursor: int = 0
    truth: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # changed at, value or deleted
    told: int = 0
    page: int = 0
    read: tuple[int, dict[str, int]] | None = None

    def change(self, name: str, value: int | None) -> None:
        self.cursor += 1
        self.truth[name] = (self.cursor, value)

    def list_anew(self) -> None:
        self.page, self.read = 0, None
        self.take()
        self.told = self.cursor
        self.mirror.known.begin()
        self.give()

    def take(self) -> None:
        """A page leaves the database."""
        if self.read is None and self.page < len(NAMES):
            names = NAMES[self.page : self.page + 2]
            self.page += 2
            alive = {name: self.truth[name][1] for name in names if name in self.truth}
            self.read = (self.cursor, {name: value for name, value in alive.items() if value is not None})

    def give(self) -> None:
        """The page arrives."""
        if self.read is None:
            return
        cursor, page = self.read
        self.read = None
        for name, value in page.items():
            self.mirror.put(name, value, cursor)
        if self.page >= len(NAMES):
            self.mirror.end()

    def tell(self) -> bool:
        """The feed says the next thing that it has to say, if anything."""
        behind = [(at, name, value) for name, (at, value) in self.truth.items() if at > self.told]
        if not behind:
            return False
        self.told, name, value = min(behind)
        if value is None:
            self.mirror.remove(name, self.told)
        else:
            self.mirror.put(name, value, self.told)
        return True

    def begin_again(self, backup: bool) -> None:
        """The database is restored from a backup or made anew: its cursor is smaller now, and it lists again."""
        kept = {name: value for name, (at, value) in self.truth.items() if value is not None} if backup else {}
        self.cursor, self.truth = 0, {}
        for name, value in kept.items():
            self.change(name, value + 1000)
        self.list_anew()


NAMES = "abcdefg"
events: st.SearchStrategy[Callable[[Server], Any]] = st.one_of(
    st.builds(
        lambda name, value: lambda s: s.change(name, value), st.sampled_from(NAMES), st.none() | st.integers(0, 9)
    ),
    st.builds(lambda name, value: lambda s: s.change(name, value), st.sampled_from(NAMES), st.integers(0, 9)),
    st.sampled_from([Server.take, Server.give, Server.tell, Server.tell, Server.list_anew]),
    st.booleans().map(lambda backup: lambda s: s.begin_again(backup)),
)


@thorough
@given(st.lists(events, min_size=8, max_size=60))
def test_list_then_watch_ends_in_what_the_server_has(happened: list[Callable[[Server], Any]]) -> None:
    server = Server()
    server.list_anew()
    for event in happened:
        event(server)
    while server.page < len(NAMES) or server.read is not None:
        server.take()
        server.give()
    while server.tell():
        pass
    assert server.mirror.held == {name: value for name, (_, value) in server.truth.items() if value is not None}
