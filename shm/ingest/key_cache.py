"""Public keys of instances, remembered so that a snapshot costs no read.

A key that is not remembered is read together with all that are asked for in the same moment: after a restart, or with
a fleet larger than the memory, a thousand installs cost one statement. What is remembered is never trusted with a
decision: the statement that writes compares the key again, and the status, in the database.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice

from shm.core.errors import DatabaseUnavailable, Overloaded
from shm.core.settings import Settings
from shm.db.database import Database

MAX_ENTRIES = 200_000  # about 200 bytes each: 40 MB for a fleet that reports hourly to this process
MAX_BATCH = 1_000  # keys read by one statement


@dataclass(frozen=True, slots=True)
class _Row:
    instance_id: str
    public_key: memoryview


class PublicKeyCache:
    """The keys of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._most_asked = settings.queue
        self._remembered: OrderedDict[str, bytes] = OrderedDict()  # bytes: nothing for the garbage collector to visit
        self._asked: dict[str, asyncio.Future[bytes | None]] = {}
        self._wanted = asyncio.Event()

    async def get(self, instance_id: str, *, refresh: bool = False) -> bytes | None:
        """The instance's Ed25519 public key, 32 bytes; None for an unknown instance. Raises Overloaded.

        `newest`: as the database has it, where a remembered one may be outdated. That is read with all others that are
        asked for, so that a flood of bad signatures costs the database little.
        """
        known = self._remembered.get(instance_id)
        if known is not None and not refresh:
            self._remembered.move_to_end(instance_id)
            return known
        key = await self._read(instance_id)
        if key is None:
            self.evict(instance_id)
            return None
        self._remembered[instance_id] = key
        self._remembered.move_to_end(instance_id)
        if len(self._remembered) > MAX_ENTRIES:
            self._remembered.popitem(last=False)
        return key

    def evict(self, instance_id: str) -> None:
        """Drops a key that turned out to be another in the database."""
        self._remembered.pop(instance_id, None)

    async def run(self) -> None:
        """Reads what is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._asked:
                asked = dict(islice(self._asked.items(), MAX_BATCH))
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
            rows = await self._database.fetch(_Row, "instances.select_public_keys", instance_ids=wanted)
        except DatabaseUnavailable as error:  # whoever asked since has waited through it too, and is told with them
            for waiting in (*asked.values(), *self._asked.values()):
                waiting.set_exception(error)
                waiting.exception()  # who asked may have gone
            self._asked.clear()
            return
        found = {row.instance_id: bytes(row.public_key) for row in rows}
        for instance_id, waiting in asked.items():
            waiting.set_result(found.get(instance_id))
