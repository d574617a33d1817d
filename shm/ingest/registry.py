"""Registration, key confirmation, rotation and status of instances."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from shm.core.errors import Forbidden
from shm.db.database import Database
from shm.ingest.enrolment import Confirmation, EnrolmentWriter, RegistrationResult
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.payloads import Registration

EXPORT_PAGE_SIZE = 20  # snapshots in one page of a disclosure, 1.3 MB at most: a slow reader keeps one page in memory
# What follows from the metrics, and the feed's cursor. The current snapshot is disclosed here too: it is kept when the
# raw one has reached the end of its retention.
UNDISCLOSED_COLUMNS = {"leaves", "cursor"}
EXPORT_PAUSE_FACTOR = 1.0  # of the time in which a page is read
REFRESH_PAGE_SIZE = 500  # instances of a statement: some milliseconds under the writers' lock
REFRESH_MAX_LEAVES = 5_000  # of a statement: instances with many keys change many rows of the tallies
# Time limit of one step. After an outage many instances are due, and every read has to correct for those that remain.
REFRESH_DURATION_S = 1.0
REFRESH_PAUSE_S = 0.02  # between two pages, so that batches of snapshots get the lock
REPLAYED = "This request was carried out before. Sign a new one with the present time."
SIGNED_BEFORE_ERASURE = (
    "This install was erased, and the request was signed before that. Sign one with a newer timestamp."
)


class Registry:
    """Writes the instances of one database."""

    def __init__(self, database: Database, keys: PublicKeyCache, enrolment: EnrolmentWriter) -> None:
        self._database = database
        self._keys = keys
        self._enrolment = enrolment
        self._export_slot = asyncio.Semaphore(1)

    async def public_key(self, instance_id: str, *, refresh: bool = False) -> bytes:
        """As `PublicKeyCache.get`, but raises Forbidden for an unknown instance."""
        key = await self._keys.get(instance_id, refresh=refresh)
        if key is None:
            raise unknown_instance()
        return key

    def cached_public_key(self, instance_id: str) -> bytes | None:
        """As `PublicKeyCache.get_cached`."""
        return self._keys.get_cached(instance_id)

    async def deferred_public_key(self, instance_id: str, body_length: int, address: bytes) -> bytes | None:
        """As `PublicKeyCache.get_deferred`."""
        return await self._keys.get_deferred(instance_id, body_length, address)

    def evict_key(self, instance_id: str) -> None:
        """Removes an outdated key from the cache."""
        self._keys.evict(instance_id)

    async def register(
        self,
        registration: Registration,
        *,
        may_create: bool,
        signed_at: datetime | None = None,
        action: bytes | None = None,
    ) -> RegistrationResult:
        """Stores a registration: a new pending instance, or staged changes of an existing one.

        Without `may_create`, a new instance is not stored and the result is OVER_LIMIT. `action`: the body of a signed
        registration with a time, `signed_at`. Raises Forbidden for a replay.
        """
        action_hash = None if action is None else _hash_action(registration.instance_id, action)
        result = await self._enrolment.register(
            registration, may_create=may_create, signed_at=signed_at, action_hash=action_hash
        )
        if result is RegistrationResult.REPLAYED:
            raise Forbidden("replayed", REPLAYED)
        if result is RegistrationResult.ERASED:
            raise Forbidden("signed_before_erasure", SIGNED_BEFORE_ERASURE)
        if result in (RegistrationResult.NEW, RegistrationResult.KNOWN):  # the activation follows soon
            self._keys.put(registration.instance_id, registration.public_key)
        return result

    async def confirm_key(
        self,
        instance_id: str,
        public_key: bytes,
        signed_at: datetime | None = None,
        action: bytes | None = None,
        hints: msgspec.Raw | None = None,
    ) -> str:
        """Applies the staged changes and activates the instance, after a signature by this key was verified.

        `signed_at`: the time in the signed body. A body without one may be a replay: it counts as a sign of life only
        the first time, and is refused for an instance that was erased. `action`: the body of a request that is
        accepted once. `hints`: a JSON object, stored if the instance is active. Returns the status, which stays
        `pending` where an admin has to approve. Beyond the limit of new applications, a new instance of a further one
        has to be approved, and a known one stays in its application. Raises Forbidden for a replay, and for an instance
        that is unknown or revoked or has another key.
        """
        action_hash = None if action is None else _hash_action(instance_id, action)
        result = await self._enrolment.confirm(instance_id, public_key, signed_at, action_hash, hints)
        if result is Confirmation.REPLAYED:
            raise Forbidden("replayed", REPLAYED)
        if result is Confirmation.ERASED:
            raise Forbidden("signed_before_erasure", SIGNED_BEFORE_ERASURE)
        if result is Confirmation.UNKNOWN:
            self.evict_key(instance_id)
            raise unknown_instance()
        return result.value

    async def set_status(self, instance_id: str, status: str) -> None:
        """Sets `active` or `revoked`, which is final, on behalf of an admin. Takes effect in all servers at once."""
        await self._database.execute("instances.set_status", instance_id=instance_id, status=status)
        if status == "revoked":
            await self._database.execute("instances.end_series", instance_id=instance_id)

    async def rotate(
        self, instance_id: str, public_key: bytes, new_key: bytes, signed_at: datetime, action: bytes
    ) -> None:
        """Replaces the public key, in all servers, after `confirm_key` with the old one. Raises as that does."""
        await self.confirm_key(instance_id, public_key, signed_at, action)
        rotated = await self._database.execute(
            "instances.rotate_key", instance_id=instance_id, public_key=public_key, new_key=new_key
        )
        self.evict_key(instance_id)
        if not rotated:  # a concurrent rotation or revocation preceded this one
            raise unknown_instance()

    async def export_instance(self, instance_id: str) -> dict[str, object]:
        """All stored data of an instance except its raw snapshots. Raises Forbidden if it does not exist."""
        row = await self._database.fetch_one(dict, "instances.export_instance", instance_id=instance_id)
        if row is None:
            raise unknown_instance()
        disclosed = {name: value for name, value in row.items() if name not in UNDISCLOSED_COLUMNS}
        return disclosed | {"public_key": row["public_key"].hex()}

    async def export_snapshots(self, instance_id: str) -> AsyncIterator[list[dict[str, object]]]:
        """All snapshots of an instance, oldest first, in pages.

        Pages are read one at a time, whatever the number of disclosures, with rests between them. So disclosures occupy
        one connection of the pool and at most half of the time of this process.
        """
        after: object = "-infinity"
        while True:
            async with self._export_slot:
                started_at = time.monotonic()
                page = await self._database.fetch(
                    dict, "instances.export_snapshots", instance_id=instance_id, after=after, limit=EXPORT_PAGE_SIZE
                )
                await asyncio.sleep(EXPORT_PAUSE_FACTOR * (time.monotonic() - started_at))
            if page:
                yield page
            if len(page) < EXPORT_PAGE_SIZE:
                return
            after = page[-1]["snapshot_at"]

    async def refresh_due(self) -> bool:
        """Recomputes the tallies of instances whose activity changed by the passing of time, longest due first.

        Returns whether more may be due.
        """
        if not await self._database.fetch_value(bool, "instances.is_refresh_due"):  # a check without the writers' lock
            return False
        deadline = time.monotonic() + REFRESH_DURATION_S
        while time.monotonic() < deadline:
            if not await self._database.fetch_value(
                int, "instances.refresh_due", limit=REFRESH_PAGE_SIZE, max_leaves=REFRESH_MAX_LEAVES
            ):
                return False
            await asyncio.sleep(REFRESH_PAUSE_S)
        return True


def _hash_action(instance_id: str, body: bytes) -> bytes:
    """Identifies an action: two installs may send the same bytes, as an activation need not name its install."""
    return hashlib.sha256(uuid.UUID(instance_id).bytes + body).digest()


def unknown_instance() -> Forbidden:
    """The refusal for an unknown or revoked instance."""
    return Forbidden("unknown_instance", "This instance is not registered, or it is revoked.")
