"""The history of all instances, by the feed's cursor, recorded by the database itself.

A trigger in the test's database writes a row in the transaction that changes an instance. The content of a list at any
cursor is therefore known afterwards, even if several servers wrote and processes were killed.
"""

import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import psycopg2

from tests.support.databases import admin_cursor

Item = dict[str, Any]

POLL_INTERVAL_S = 0.03  # between two reads of the feed's newest cursor
JOIN_TIMEOUT_S = 60  # for the last read

HIDDEN_KEY = "beta"  # the metric that `tests/support/chaos.py` hides
TIMESTAMPS = ("last_seen_at", "first_seen_at", "snapshot_at")

# The cursor of a deleted row is that of its removal, which is the last message about it; without one, the newest one.
HISTORY_TRIGGER = """
    CREATE TABLE history (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        cursor bigint NOT NULL,
        instance_id uuid NOT NULL,
        item jsonb
    );
    CREATE FUNCTION record_history() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO history (cursor, instance_id)
            SELECT
                coalesce((SELECT max(r.cursor) FROM removals r WHERE r.instance_id = OLD.instance_id), head.cursor),
                OLD.instance_id
            FROM feed_head head;
        ELSE
            INSERT INTO history (cursor, instance_id, item)
            SELECT i.cursor, i.instance_id, to_jsonb(i) - 'cursor'
            FROM instance_items i
            WHERE i.instance_id = NEW.instance_id;
        END IF;
        RETURN NULL;
    END $$;
    SET timezone = 'UTC';
    INSERT INTO history (cursor, instance_id, item)
    SELECT cursor, instance_id, to_jsonb(i) - 'cursor' FROM instance_items i;
    CREATE TRIGGER record_history AFTER INSERT OR UPDATE OR DELETE ON instances
        FOR EACH ROW EXECUTE FUNCTION record_history();
"""

# Transactions that move the cursor wait before their commit: up to 10 ms, and 2 % of them for 0.3 s.
SLOW_COMMIT_TRIGGER = """
    CREATE FUNCTION delay_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.3 ELSE random() * 0.01 END);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER delay_commit AFTER UPDATE ON feed_head DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION delay_commit();
"""


@dataclass(frozen=True, slots=True)
class State:
    """An instance from a cursor on, as the API returns it; None if it does not exist."""

    cursor: int
    item: Item | None


NEVER = State(0, None)


@dataclass(slots=True)
class History:
    """All states of all instances in order, and all changes by cursor."""

    states: dict[str, list[State]] = field(default_factory=lambda: defaultdict(lambda: [NEVER]))
    changes: list[tuple[int, str]] = field(default_factory=list)

    def at(self, instance_id: str, cursor: int) -> int:
        """The index, in an instance's states, of its state at this cursor."""
        return bisect_right(self.states[instance_id], cursor, key=lambda state: state.cursor) - 1

    def newest(self, app: str | None = None) -> dict[str, Item]:
        """The items of a list after the last change."""
        last = {instance_id: states[-1].item for instance_id, states in self.states.items()}
        return {each: item for each, item in last.items() if item is not None and app in (None, item["app_slug"])}

    def totals(self, app: str) -> list[tuple[int, int]]:
        """The number of an application's instances that have proved their key, from each cursor on."""
        found, members = [(0, 0)], set[str]()
        for cursor, instance_id in self.changes:
            item = self.states[instance_id][self.at(instance_id, cursor)].item
            is_unproven = item is not None and item["status"] == "pending" and item["first_seen_at"] is None
            if item is not None and item["app_slug"] == app and not is_unproven:
                members.add(instance_id)
            else:
                members.discard(instance_id)
            found.append((cursor, len(members)))
        return found


class CursorSamples:
    """Samples of the feed's newest cursor: an upper bound of the cursor at the time of a message."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._stopped = threading.Event()

    def after(self, time_s: float) -> int:
        """The newest cursor at a time after `time_s` (monotonic). No later cursor can have been read by then."""
        return self._samples[bisect_right(self._samples, time_s, key=lambda sample: sample[0])][1]

    @contextmanager
    def sampling(self, database: str) -> Iterator[None]:
        """Samples during the context and once after it. While the database is down, sampling is retried."""
        sampler = threading.Thread(target=self._sample, args=(database,), daemon=True)
        sampler.start()
        try:
            yield
        finally:
            self._stopped.set()
            sampler.join(JOIN_TIMEOUT_S)

    def _sample(self, database: str) -> None:
        is_last = False
        while not is_last:
            try:
                with admin_cursor(database) as cursor:
                    while not is_last:
                        is_last, began = self._stopped.is_set(), time.monotonic()
                        cursor.execute("SELECT cursor FROM feed_head")
                        self._samples += [(began, head) for (head,) in cursor.fetchall()]
                        self._stopped.wait(POLL_INTERVAL_S)
            except psycopg2.Error:
                is_last = False
                time.sleep(POLL_INTERVAL_S)


def record_history(database: str, *, slow_commits: bool = False) -> None:
    """Installs the trigger that records the history; with `slow_commits` also the one that delays commits."""
    with admin_cursor(database) as cursor:
        cursor.execute(HISTORY_TRIGGER)
        if slow_commits:
            cursor.execute(SLOW_COMMIT_TRIGGER)


def read_history(database: str) -> History:
    """Reads the recorded history. Asserts that each change of a state has a cursor of its own."""
    found = History()
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT cursor, instance_id::text, item::text FROM history ORDER BY number")
        for number, instance_id, text in cursor.fetchall():
            states = found.states[instance_id]
            state = State(number, None if text is None else with_parsed_times(msgspec.json.decode(text)))
            if state == states[-1]:  # a change that the API does not show, such as a staged registration
                continue
            assert state.cursor > states[-1].cursor, f"changed without a cursor: {states[-1]} and then {state}"
            states.append(state)
            found.changes.append((number, instance_id))
    found.changes.sort()
    return found


def with_parsed_times(item: Item) -> Item:
    """An item with parsed timestamps, because PostgreSQL and the API format them differently.

    Without the metrics that chaos hides at some time: whether the feed sends them follows the application's settings of
    the moment and not the instance's state.
    """
    metrics = {key: value for key, value in item["metrics"].items() if key != HIDDEN_KEY}
    times = {name: item[name] and datetime.fromisoformat(item[name]) for name in TIMESTAMPS}
    return item | times | {"metrics": metrics}
