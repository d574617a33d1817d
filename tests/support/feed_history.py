"""Every state that each instance ever had, by the feed's cursor, as the database itself remembers it.

A trigger, in the test's own database, writes a row in the very transaction that changes an instance. So what a list
shows at any cursor is known afterwards, whatever was killed meanwhile and whoever wrote.
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

LOOK_S = 0.03  # between two looks at the feed's head
LIMIT_S = 60  # for the last one

MOMENTS = ("last_seen_at", "first_seen_at", "snapshot_at")

# Of a row that is deleted the cursor is that of its removal, which is told last; without one, the newest of all.
REMEMBER = """
    CREATE TABLE history (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        cursor bigint NOT NULL,
        instance_id uuid NOT NULL,
        item jsonb
    );
    CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' AS $$
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
    CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON instances
        FOR EACH ROW EXECUTE FUNCTION remember();
"""

# Whatever moves the cursor stays open for a while before it is committed, some of it for long.
LINGER = """
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.3 ELSE random() * 0.01 END);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER linger AFTER UPDATE ON feed_head DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION linger();
"""


@dataclass(frozen=True, slots=True)
class State:
    """An instance from a cursor on, as the API shows it; None: there was no such instance."""

    cursor: int
    item: Item | None


NEVER = State(0, None)


@dataclass(slots=True)
class History:
    """All states of all instances, each one's in their order, and all changes by their cursor."""

    states: dict[str, list[State]] = field(default_factory=lambda: defaultdict(lambda: [NEVER]))
    changes: list[tuple[int, str]] = field(default_factory=list)

    def at(self, instance_id: str, cursor: int) -> int:
        """The place, among an instance's states, of the one that a list shows at this cursor."""
        return bisect_right(self.states[instance_id], cursor, key=lambda state: state.cursor) - 1

    def newest(self, app: str | None = None) -> dict[str, Item]:
        """What a list shows at last."""
        last = {instance_id: states[-1].item for instance_id, states in self.states.items()}
        return {each: item for each, item in last.items() if item is not None and app in (None, item["app_slug"])}

    def totals(self, app: str) -> list[tuple[int, int]]:
        """How many instances an application has, whatever their status, from each cursor on."""
        found, members = [(0, 0)], set[str]()
        for cursor, instance_id in self.changes:
            item = self.states[instance_id][self.at(instance_id, cursor)].item
            if item is not None and item["app_slug"] == app:
                members.add(instance_id)
            else:
                members.discard(instance_id)
            found.append((cursor, len(members)))
        return found


class Heads:
    """The feed's head over time: how far the database had gone at the latest when something was heard."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._ended = threading.Event()

    def after(self, moment: float) -> int:
        """The head at a time after this one, of the monotonic clock: nothing later can have been read by then."""
        return self._seen[bisect_right(self._seen, moment, key=lambda seen: seen[0])][1]

    @contextmanager
    def watched(self, database: str) -> Iterator[None]:
        """Looks again and again as long as the context lasts, and once afterwards; an absent database is waited for."""
        looking = threading.Thread(target=self._look, args=(database,), daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._ended.set()
            looking.join(LIMIT_S)

    def _look(self, database: str) -> None:
        is_last = False
        while not is_last:
            try:
                with admin_cursor(database) as cursor:
                    while not is_last:
                        is_last, began = self._ended.is_set(), time.monotonic()
                        cursor.execute("SELECT cursor FROM feed_head")
                        self._seen += [(began, head) for (head,) in cursor.fetchall()]
                        self._ended.wait(LOOK_S)
            except psycopg2.Error:
                is_last = False
                time.sleep(LOOK_S)


def remember(database: str, *, slow_commits: bool = False) -> None:
    """From now on the database remembers, and commits slowly where that is wanted."""
    with admin_cursor(database) as cursor:
        cursor.execute(REMEMBER)
        if slow_commits:
            cursor.execute(LINGER)


def history(database: str) -> History:
    """What a database remembers. No state may have become another one without a cursor of its own."""
    found = History()
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT cursor, instance_id::text, item::text FROM history ORDER BY number")
        for number, instance_id, text in cursor.fetchall():
            states = found.states[instance_id]
            state = State(number, None if text is None else comparable(msgspec.json.decode(text)))
            if state == states[-1]:  # what is shown of it is the same, such as while something is staged
                continue
            assert state.cursor > states[-1].cursor, f"changed without a cursor: {states[-1]} and then {state}"
            states.append(state)
            found.changes.append((number, instance_id))
    found.changes.sort()
    return found


def comparable(item: Item) -> Item:
    """An item with its moments read: PostgreSQL and the API write them differently."""
    return item | {name: item[name] and datetime.fromisoformat(item[name]) for name in MOMENTS}
