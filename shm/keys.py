"""Public keys of instances, remembered so that a snapshot costs no read.

A key that is not remembered is read together with all that are asked for in the same moment: after a restart, or with
a fleet larger than the memory, a thousand installs cost one statement. What is remembered is never trusted with a
decision: the statement that writes compares the key again, and the status, in the database.
"""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from shm.database import Database
from shm.errors import DatabaseUnavailable, Overloaded
from shm.settings import Settings

REMEMBERED = 200_000  # about 200 bytes each: 40 MB for a fleet that reports hourly to this process
RECHECK_S = 1.0  # between two looks at the newest key of an instance
RECHECKED = 10_000  # instances of which it is known when that was; more at a time are a flood, and read together
AT_ONCE = 1_000  # keys read by one statement


@dataclass(frozen=True, slots=True)
class _Row:
    instance_id: str
    public_key: memoryview


T = TypeVar("T")


class Keys:
    """The keys of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._most_asked = settings.queue
        self._remembered: OrderedDict[str, bytes] = OrderedDict()  # bytes: nothing for the garbage collector to visit
        self._rechecked: OrderedDict[str, float] = OrderedDict()
        self._asked: dict[str, asyncio.Future[bytes | None]] = {}
        self._wanted = asyncio.Event()

    async def of(self, instance_id: str, *, newest: bool = False) -> bytes | None:
        """The instance's Ed25519 public key, 32 bytes; None for an unknown instance. Raises Overloaded.

        `newest`: as the database has it, where a remembered one may be outdated. That is looked up once a second for
        each instance, so that bad signatures cost the database nothing.
        """
        known = self._remembered.get(instance_id)
        if known is not None and not (newest and self._is_due(instance_id)):
            self._remembered.move_to_end(instance_id)
            return known
        key = await self._read(instance_id)
        if key is None:
            self.forget(instance_id)
            return None
        _put(self._remembered, instance_id, key, REMEMBERED)
        return key

    def _is_due(self, instance_id: str) -> bool:
        """Whether the newest key may be looked up again, which it then is."""
        now = time.monotonic()
        if now - self._rechecked.get(instance_id, -math.inf) <= RECHECK_S:
            return False
        _put(self._rechecked, instance_id, now, RECHECKED)
        return True

    def forget(self, instance_id: str) -> None:
        """Drops a key that turned out to be another in the database."""
        self._remembered.pop(instance_id, None)

    async def run(self) -> None:
        """Reads what is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._asked:
                asked = dict(islice(self._asked.items(), AT_ONCE))
                for instance_id in asked:
                    del self._asked[instance_id]
                await self._answer(asked)

    async def _read(self, instance_id: str) -> bytes | None:
        asked = self._asked.get(instance_id)
        if asked is None:
            if len(self._asked) >= self._most_asked:
                raise Overloaded("queue_full", "More installs come in than can be looked up; try again shortly.")
            asked = self._asked[instance_id] = asyncio.get_running_loop().create_future()
            self._wanted.set()
        return await asyncio.shield(asked)  # others may wait for it too

    async def _answer(self, asked: "dict[str, asyncio.Future[bytes | None]]") -> None:
        try:
            wanted = "{" + ",".join(asked) + "}"  # as PostgreSQL writes an array; all are UUIDs
            rows = await self._database.fetch(_Row, "instances.public_keys", instance_ids=wanted)
        except DatabaseUnavailable as error:  # whoever asked since has waited through it too, and is told with them
            for waiting in (*asked.values(), *self._asked.values()):
                waiting.set_exception(error)
                waiting.exception()  # who asked may have gone
            self._asked.clear()
            return
        found = {row.instance_id: bytes(row.public_key) for row in rows}
        for instance_id, waiting in asked.items():
            waiting.set_result(found.get(instance_id))


def _put(remembered: OrderedDict[str, T], instance_id: str, value: T, most: int) -> None:
    """Remembers it as the newest, and forgets what was longest unheard of."""
    remembered[instance_id] = value
    remembered.move_to_end(instance_id)
    if len(remembered) > most:
        remembered.popitem(last=False)
