"""A cache of the instances' public keys, so that a snapshot needs no read.

Misses are batched: after a restart, or with a fleet larger than the cache, one statement reads up to a thousand keys.
The cache is never authoritative: the statement that writes compares the key and the status with the stored ones.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from itertools import islice

from shm.core.errors import DatabaseUnavailable, Overloaded
from shm.core.settings import Settings
from shm.core.shared_budget import SharedBudget
from shm.db.database import Database

MAX_ENTRIES = 200_000  # about 200 bytes each: 40 MB for a fleet that reports hourly to this process
MAX_BATCH = 1_000  # keys read by one statement
DEFERRED_READ_INTERVAL_S = 0.5  # between two statements that read deferred keys
MAX_DEFERRED_BYTES = 8 * 1024 * 1024  # of requests that wait for deferred keys
REQUEST_BYTES = 4 * 1024  # of such a request beside its body


@dataclass(frozen=True, slots=True)
class _Row:
    instance_id: str
    public_key: memoryview


class PublicKeyCache:
    """Reads and caches the keys of one database; `run` must be running."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._max_requested = settings.queue
        self._cached: OrderedDict[str, bytes] = OrderedDict()  # bytes: not tracked by the garbage collector
        self._requested: dict[str, asyncio.Future[bytes | None]] = {}
        self._request_added = asyncio.Event()
        self._deferred: dict[str, asyncio.Future[bytes | None]] = {}
        self._deferred_budget = SharedBudget(MAX_DEFERRED_BYTES)

    async def get(self, instance_id: str, *, refresh: bool = False) -> bytes | None:
        """The instance's Ed25519 public key, 32 bytes; None for an unknown instance. Raises Overloaded.

        `refresh` reads the key from the database even if it is cached. Such reads are batched too, so that a flood of
        bad signatures costs the database little.
        """
        cached = self._cached.get(instance_id)
        if cached is not None and not refresh:
            self._cached.move_to_end(instance_id)
            return cached
        key = await self._read(instance_id)
        if key is None:
            self.evict(instance_id)
            return None
        self.put(instance_id, key)
        return key

    def get_cached(self, instance_id: str) -> bytes | None:
        """The key without a read; None if it is not cached. Another server may have changed it."""
        return self._cached.get(instance_id)

    async def get_deferred(self, instance_id: str, body_length: int, address: bytes) -> bytes | None:
        """Reads the key for a request of a client that has sent too many invalid ones, cached or not.

        One statement reads the keys for all such requests of an interval. So a flood costs hardly anything, and a known
        instance gets through also if its key is not cached, as after a restart, or if another server has changed it.
        None also if too many bytes wait, in all or of the address, a keyed hash.
        """
        length = body_length + REQUEST_BYTES
        budget = self._deferred_budget
        if budget.is_share_exhausted_by(address, length, is_first_free=False) or budget.is_exhausted_by(length):
            return None
        if not self._deferred:
            asyncio.get_running_loop().call_later(DEFERRED_READ_INTERVAL_S, self._request_deferred)
        future = self._deferred.setdefault(instance_id, asyncio.get_running_loop().create_future())
        with budget.use(address, length):
            key = await asyncio.shield(future)
        if key is None:
            self.evict(instance_id)
        else:
            self.put(instance_id, key)
        return key

    def _request_deferred(self) -> None:
        for instance_id, future in self._deferred.items():
            requested = self._requested.setdefault(instance_id, future)
            if requested is not future:
                requested.add_done_callback(partial(_copy_result, future))
        self._deferred.clear()
        self._request_added.set()

    def put(self, instance_id: str, key: bytes) -> None:
        """Caches a key that was just read or stored."""
        self._cached[instance_id] = key
        self._cached.move_to_end(instance_id)
        if len(self._cached) > MAX_ENTRIES:
            self._cached.popitem(last=False)

    def evict(self, instance_id: str) -> None:
        """Removes an outdated key."""
        self._cached.pop(instance_id, None)

    async def run(self) -> None:
        """Reads requested keys until cancelled."""
        while True:
            await self._request_added.wait()
            self._request_added.clear()
            while self._requested:
                requested = dict(islice(self._requested.items(), MAX_BATCH))
                for instance_id in requested:
                    del self._requested[instance_id]
                await self._read_batch(requested)

    async def _read(self, instance_id: str) -> bytes | None:
        requested = self._requested.get(instance_id)
        if requested is None:
            if len(self._requested) >= self._max_requested:
                raise Overloaded("queue_full", "Requests arrive faster than keys can be read; try again shortly.")
            requested = self._requested[instance_id] = asyncio.get_running_loop().create_future()
            self._request_added.set()
        return await asyncio.shield(requested)  # other requests may wait for the same key

    async def _read_batch(self, requested: "dict[str, asyncio.Future[bytes | None]]") -> None:
        try:
            array = "{" + ",".join(requested) + "}"  # an array literal; all IDs are UUIDs, so nothing needs quotes
            rows = await self._database.fetch(_Row, "instances.select_public_keys", instance_ids=array)
        except DatabaseUnavailable as error:  # keys requested during the failed wait fail with these
            for future in (*requested.values(), *self._requested.values()):
                future.set_exception(error)
                future.exception()  # marks it as retrieved: the request may have been cancelled
            self._requested.clear()
            return
        keys = {row.instance_id: bytes(row.public_key) for row in rows}
        for instance_id, future in requested.items():
            future.set_result(keys.get(instance_id))


def _copy_result(target: "asyncio.Future[bytes | None]", source: "asyncio.Future[bytes | None]") -> None:
    error = source.exception()
    if error is None:
        target.set_result(source.result())
    else:
        target.set_exception(error)
        target.exception()  # marks it as retrieved: the request may have been cancelled
