"""Holds what a subscriber did and was told to the history of its database. The feed's promise, as a program.

At every cursor that it was told, a subscriber holds of each instance a state of then or later; or the instance has
changed again by that time, after this cursor, and is told of with that. So nobody misses anything who goes on from
there, and where nothing changes any more, it holds what there is. Each message is the state of exactly its cursor; they
come in the cursor's order, none from before what was asked for, none twice. KPIs are of then or later, too. A list of
one page shows what there was at its cursor.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.feed_history import Heads, History, Item, State, comparable

KPIS_INTERVAL_S = 0.5  # at least, from one read of an application's KPIs to the next

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ListFetched:
    """A list: its items, the cursor of its first page, and that of its last one."""

    items: list[Item]
    cursor: int
    last_cursor: int


@dataclass(frozen=True, slots=True)
class FeedOpened:
    """A feed was opened from this cursor on, at this time of the monotonic clock at the earliest."""

    since: int
    at: float


@dataclass(frozen=True, slots=True)
class Received:
    """A message came, at this time of the monotonic clock."""

    message: Message
    at: float


Event = ListFetched | FeedOpened | Received


def check_log(log: Sequence[Event], app: str | None, truth: History, heads: Heads) -> int:
    """Plays a subscriber's log again, beside the truth; returns how many cursors it was held at.

    Raises AssertionError with what it should have held.
    """
    replay = _Replay(app, truth)
    for event in log:
        match event:
            case ListFetched():
                replay.listed(event)
            case FeedOpened():
                replay.opened(event)
            case Received():
                replay.told(event, heads.after(event.at))
    return replay.held


@dataclass(slots=True)
class _Replay:
    app: str | None
    truth: History
    mirror: dict[str, Item] = field(default_factory=dict)
    place: dict[str, int] = field(default_factory=dict)  # of the state that it holds, in its history
    cursor: int = 0
    newest: dict[str, int] = field(default_factory=dict)  # cursor of what this connection told of an instance last
    due: int = 0  # changes that it has been held to, in the order of the cursor
    owed: set[str] = field(default_factory=set)  # instances that had changed again, and were still to be told of
    whole_at: int = 0  # a list of several pages is whole at the cursor of its last one
    is_whole: bool = False
    is_lost: bool = True
    since: int = 0
    opened_at: float = 0.0
    kpis: Counter[str] = field(default_factory=Counter)
    totals: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # of an application, from each cursor on
    greeted_at: int | None = None
    held: int = 0

    def listed(self, event: ListFetched) -> None:
        self.mirror = {item["instance_id"]: comparable(item) for item in event.items}
        self.place = {}
        self.cursor, self.whole_at = event.cursor, event.last_cursor
        self.is_whole, self.is_lost = False, False
        if event.cursor == event.last_cursor:
            self._reach(event.cursor, event.cursor)
            for instance_id, place in self.place.items():
                assert place == self.truth.at(instance_id, event.cursor), f"a list newer than its cursor: {instance_id}"

    def opened(self, event: FeedOpened) -> None:
        assert not self.is_lost, "it should have listed again"
        assert event.since == self.cursor
        self.since, self.opened_at, self.greeted_at = event.since, event.at, None
        self.newest, self.kpis = {}, Counter()

    def told(self, event: Received, head: int) -> None:
        message = event.message
        kind = message["type"]
        if kind == "resync":
            self.is_lost = True
            return
        assert not self.is_lost or kind == "hello", f"told after a resync: {message}"
        cursor = message["cursor"]
        if kind == "hello":
            assert self.greeted_at is None, "greeted twice"
            self.greeted_at = cursor
            return
        assert self.greeted_at == self.since, f"greeted at {self.greeted_at}, asked for {self.since}"
        if kind == "kpis":  # true at their cursor or later, and told when they have been read
            cursor = max(cursor, self.cursor)
        assert cursor >= self.cursor, f"told {cursor} after {self.cursor}: {message}"
        if kind == "instance":
            self._changed(message["instance"]["instance_id"], cursor, comparable(message["instance"]))
        elif kind == "removed":
            self._removed(message["instance_id"], cursor)
        elif kind == "kpis":
            self._summed(message, event.at, head)
        self._reach(cursor, head)

    def _changed(self, instance_id: str, cursor: int, item: Item) -> None:
        place = self.truth.at(instance_id, cursor)
        had = self.truth.states[instance_id][place]
        assert had == State(cursor, item), f"told at {cursor} {item}, but it was {had}"
        assert self.app in (None, item["app_slug"]), f"not asked for: {item}"
        assert cursor > max(self.since, self.newest.get(instance_id, 0)), f"told again: {instance_id} at {cursor}"
        self.newest[instance_id] = cursor
        self.mirror[instance_id], self.place[instance_id] = item, place

    def _removed(self, instance_id: str, cursor: int) -> None:
        assert cursor > self.since, f"told again: {instance_id} at {cursor}"
        self.mirror.pop(instance_id, None)
        self.place[instance_id] = 0
        assert self._is_true(instance_id, cursor), self._fault(instance_id, cursor)

    def _summed(self, message: Message, at: float, head: int) -> None:
        """At most two a second and two more: one of before the feed was opened, one read before and sent after it."""
        app = message["app"]
        assert self.app in (None, app), f"not asked for: {app}"
        self.kpis[app] += 1
        assert self.kpis[app] <= 3 + (at - self.opened_at) / KPIS_INTERVAL_S, f"too many KPIs of {app}"
        totals = self.totals[app] = self.totals.get(app) or self.truth.totals(app)
        first, last = (bisect_right(totals, cursor, key=lambda entry: entry[0]) for cursor in (message["cursor"], head))
        true = [total for _, total in totals[first - 1 : last]]
        assert message["instances"]["total"] in true, f"{message['instances']} of {app}, but there were {true}"

    def _reach(self, cursor: int, head: int) -> None:
        """All that changed up to here is in the mirror, or changed again before the head was that."""
        self.cursor = cursor
        if cursor < self.whole_at:
            return
        self.held += 1
        until = bisect_right(self.truth.changes, cursor, key=lambda change: change[0])
        if self.is_whole:
            changed = {instance_id for _, instance_id in self.truth.changes[self.due : until]} | self.owed
        else:
            changed = self.truth.states.keys() | self.mirror.keys()
        self.owed = {instance_id for instance_id in changed if not self._is_true(instance_id, cursor)}
        for instance_id in self.owed:
            again = self.truth.at(instance_id, head)
            assert again > self.truth.at(instance_id, cursor), self._fault(instance_id, cursor)
        self.due, self.is_whole = until, True

    def _is_true(self, instance_id: str, cursor: int) -> bool:
        """Whether it holds of an instance a state of then or later, and no older one than what it held before."""
        states = self.truth.states[instance_id]
        held = self.mirror.get(instance_id)
        for place in range(max(self.truth.at(instance_id, cursor), self.place.get(instance_id, 0)), len(states)):
            if self._seen(states[place]) == held:
                self.place[instance_id] = place
                return True
        return False

    def _fault(self, instance_id: str, cursor: int) -> str:
        states, due = self.truth.states[instance_id], self.truth.at(instance_id, cursor)
        lines = [f"  {state.cursor}: {_short(state.item)}" for state in states[max(0, due - 3) : due + 2]]
        held = _short(self.mirror.get(instance_id))
        return (
            f"at {cursor} a subscriber of {self.app or 'all'} holds of {instance_id}\n  {held}\nwhich was\n"
            + "\n".join(lines)
        )

    def _seen(self, state: State) -> Item | None:
        """As somebody sees it who asked for one application."""
        if state.item is None or self.app not in (None, state.item["app_slug"]):
            return None
        return state.item


def _short(item: Item | None) -> str:
    shown = ("app_slug", "status", "last_seen_at", "metrics")
    return "none" if item is None else ", ".join(str(item[name]) for name in shown)
