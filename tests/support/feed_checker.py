"""Compares the log of a subscriber with the history of its database, by the guarantees of the feed.

- At each received cursor, the mirror has each instance's state at that cursor or later. The exception is an instance
  that changed again in the meantime: a later message contains that change. A subscriber that resumes from its cursor
  therefore misses nothing, and after the last change its mirror equals the database.
- Each message contains the state at exactly its cursor. Messages arrive in the order of their cursors; none is older
  than the requested cursor, and none arrives twice.
- KPIs are those at their cursor or later. A list of one page is the state at its cursor.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.feed_history import CursorSamples, History, Item, State, with_parsed_times

MIN_KPIS_INTERVAL_S = 0.5  # from one read of an application's KPIs to the next

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ListFetched:
    """A list was read: its items and the cursors of its first and last page."""

    items: list[Item]
    cursor: int
    last_cursor: int


@dataclass(frozen=True, slots=True)
class FeedOpened:
    """A feed was opened with this `since`, at or after the monotonic time `at`."""

    since: int
    at: float


@dataclass(frozen=True, slots=True)
class Received:
    """A message was received at the monotonic time `at`."""

    message: Message
    at: float


Event = ListFetched | FeedOpened | Received


def check_log(log: Sequence[Event], app: str | None, truth: History, cursor_samples: CursorSamples) -> int:
    """Replays a subscriber's log against the history; returns the number of cursors at which the mirror was checked.

    Raises AssertionError with the expected state.
    """
    replay = _Replay(app, truth)
    for event in log:
        match event:
            case ListFetched():
                replay.apply_list(event)
            case FeedOpened():
                replay.apply_opened(event)
            case Received():
                replay.apply_message(event, cursor_samples.after(event.at))
    return replay.checked


@dataclass(slots=True)
class _Replay:
    app: str | None
    truth: History
    mirror: dict[str, Item] = field(default_factory=dict)
    index: dict[str, int] = field(default_factory=dict)  # of each mirrored state in the history of its instance
    cursor: int = 0
    newest: dict[str, int] = field(
        default_factory=dict
    )  # cursor of the last message about an instance on this connection
    checked_changes: int = 0  # length of the prefix of all changes that has been checked
    pending: set[str] = field(default_factory=set)  # instances that changed again and whose message has not arrived yet
    complete_at: int = 0  # a list of several pages is complete at the cursor of its last page
    is_complete: bool = False
    needs_list: bool = True
    since: int = 0
    opened_at: float = 0.0
    kpis: Counter[str] = field(default_factory=Counter)
    totals: dict[str, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # by application: the number of instances from each cursor on
    hello_cursor: int | None = None
    checked: int = 0

    def apply_list(self, event: ListFetched) -> None:
        self.mirror = {item["instance_id"]: with_parsed_times(item) for item in event.items}
        self.index = {}
        self.cursor, self.complete_at = event.cursor, event.last_cursor
        self.is_complete, self.needs_list = False, False
        if event.cursor == event.last_cursor:
            self._advance(event.cursor, event.cursor)
            for instance_id, index in self.index.items():
                assert index == self.truth.at(instance_id, event.cursor), f"a list newer than its cursor: {instance_id}"

    def apply_opened(self, event: FeedOpened) -> None:
        assert not self.needs_list, "opened a feed after a resync without a new list"
        assert event.since == self.cursor
        self.since, self.opened_at, self.hello_cursor = event.since, event.at, None
        self.newest, self.kpis = {}, Counter()

    def apply_message(self, event: Received, head: int) -> None:
        message = event.message
        kind = message["type"]
        if kind == "resync":
            self.needs_list = True
            return
        assert not self.needs_list or kind == "hello", f"a message after a resync: {message}"
        cursor = message["cursor"]
        if kind == "hello":
            assert self.hello_cursor is None, "a second hello"
            self.hello_cursor = cursor
            return
        assert self.hello_cursor == self.since, f"hello at {self.hello_cursor} for since={self.since}"
        if kind == "kpis":  # read at their cursor or later, and sent after that
            cursor = max(cursor, self.cursor)
        assert cursor >= self.cursor, f"cursor {cursor} after {self.cursor}: {message}"
        if kind == "instance":
            self._apply_instance(message["instance"]["instance_id"], cursor, with_parsed_times(message["instance"]))
        elif kind == "removed":
            self._apply_removal(message["instance_id"], cursor)
        elif kind == "kpis":
            self._apply_kpis(message, event.at, head)
        self._advance(cursor, head)

    def _apply_instance(self, instance_id: str, cursor: int, item: Item) -> None:
        index = self.truth.at(instance_id, cursor)
        expected = self.truth.states[instance_id][index]
        assert expected == State(cursor, item), f"received {item} at {cursor}, but its state was {expected}"
        assert self.app in (None, item["app_slug"]), f"of another application: {item}"
        assert cursor > max(self.since, self.newest.get(instance_id, 0)), f"received again: {instance_id} at {cursor}"
        self.newest[instance_id] = cursor
        self.mirror[instance_id], self.index[instance_id] = item, index

    def _apply_removal(self, instance_id: str, cursor: int) -> None:
        assert cursor > self.since, f"received again: {instance_id} at {cursor}"
        self.mirror.pop(instance_id, None)
        self.index[instance_id] = 0
        assert self._is_true(instance_id, cursor), self._describe_mismatch(instance_id, cursor)

    def _apply_kpis(self, message: Message, at: float, head: int) -> None:
        """At most two a second, one from before the feed was opened, and one read before and sent after that."""
        app = message["app"]
        assert self.app in (None, app), f"of another application: {app}"
        self.kpis[app] += 1
        assert self.kpis[app] <= 3 + (at - self.opened_at) / MIN_KPIS_INTERVAL_S, f"too many KPIs of {app}"
        totals = self.totals[app] = self.totals.get(app) or self.truth.totals(app)
        first, last = (bisect_right(totals, cursor, key=lambda entry: entry[0]) for cursor in (message["cursor"], head))
        true = [total for _, total in totals[first - 1 : last]]
        assert message["instances"]["total"] in true, f"{message['instances']} of {app}, but there were {true}"

    def _advance(self, cursor: int, head: int) -> None:
        """Asserts that the mirror has all changes up to `cursor`, unless the instance changed again before `head`."""
        self.cursor = cursor
        if cursor < self.complete_at:
            return
        self.checked += 1
        end = bisect_right(self.truth.changes, cursor, key=lambda change: change[0])
        if self.is_complete:
            changed = {instance_id for _, instance_id in self.truth.changes[self.checked_changes : end]} | self.pending
        else:
            changed = self.truth.states.keys() | self.mirror.keys()
        self.pending = {instance_id for instance_id in changed if not self._is_true(instance_id, cursor)}
        for instance_id in self.pending:
            index_at_head = self.truth.at(instance_id, head)
            assert index_at_head > self.truth.at(instance_id, cursor), self._describe_mismatch(instance_id, cursor)
        self.checked_changes, self.is_complete = end, True

    def _is_true(self, instance_id: str, cursor: int) -> bool:
        """Whether the mirrored state of an instance is that at `cursor` or later, and not older than the last one."""
        states = self.truth.states[instance_id]
        mirrored = self.mirror.get(instance_id)
        for index in range(max(self.truth.at(instance_id, cursor), self.index.get(instance_id, 0)), len(states)):
            if self._visible_item(states[index]) == mirrored:
                self.index[instance_id] = index
                return True
        return False

    def _describe_mismatch(self, instance_id: str, cursor: int) -> str:
        states, index = self.truth.states[instance_id], self.truth.at(instance_id, cursor)
        lines = [f"  {state.cursor}: {_summary(state.item)}" for state in states[max(0, index - 3) : index + 2]]
        mirrored = _summary(self.mirror.get(instance_id))
        return (
            f"at {cursor} a subscriber of {self.app or 'all'} has {instance_id} as\n  {mirrored}\nbut its history is\n"
            + "\n".join(lines)
        )

    def _visible_item(self, state: State) -> Item | None:
        """The state as a subscriber of `app` sees it."""
        if state.item is None or self.app not in (None, state.item["app_slug"]):
            return None
        return state.item


def _summary(item: Item | None) -> str:
    shown = ("app_slug", "status", "last_seen_at", "metrics")
    return "none" if item is None else ", ".join(str(item[name]) for name in shown)
