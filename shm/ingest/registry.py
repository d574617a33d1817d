"""Who an install is: its registration, its proof, another key, its end. The rare writes beside the intake."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import msgspec

from shm.core.errors import Forbidden
from shm.core.json_types import Timestamp
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.payloads import Registration

EXPORT_PAGE = 20  # snapshots read at a time for a disclosure, 1.3 MB at their largest: whoever does not read holds them
REFRESH_PAGE = 500  # placed anew at a time: some milliseconds under the writers' lock
REFRESH_DURATION_S = (
    1.0  # so long it goes on: while many are due, as after an outage, all readers have to correct for them
)
REFRESH_PAUSE_S = 0.02  # between two pages: the intake's turn
ERASE_PAGE = 500  # snapshots taken out at a time: some tens of milliseconds under the writers' lock
PURGE_PAGE = 1_000  # removed at a time, so that the intake never waits long


class RegistrationResult(StrEnum):
    """What became of a registration."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What was deleted of an instance."""

    instance_id: str
    app_name: str
    erased_at: Timestamp
    snapshots: int
    oldest_snapshot_at: Timestamp | None
    newest_snapshot_at: Timestamp | None


@dataclass(frozen=True, slots=True)
class _Erased:
    snapshots: int
    oldest_snapshot_at: datetime | None
    newest_snapshot_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Claim:
    staged: msgspec.Raw | None
    slug: str
    name: str


class _Staged(msgspec.Struct):
    app_version: str | None = None


class Registry:
    """Registrations and proofs, over one database."""

    def __init__(self, database: Database, keys: PublicKeyCache, settings: Settings) -> None:
        self._database = database
        self._approval_wanted = settings.activation == "manual"
        self._keys = keys
        self._pending_age = settings.pending_age

    async def public_key(self, instance_id: str, *, refresh: bool = False) -> bytes:
        """As `Keys.of`; raises Forbidden for an unknown instance."""
        key = await self._keys.get(instance_id, refresh=refresh)
        if key is None:
            raise unknown_instance()
        return key

    def evict_key(self, instance_id: str) -> None:
        """Drops a remembered key that turned out to be another in the database."""
        self._keys.evict(instance_id)

    async def register(self, said: Registration) -> RegistrationResult:
        """Writes down an unproven registration: a new pending instance, or something staged for a known one."""
        verdict = await self._database.fetch_value(
            str,
            "instances.register",
            instance_id=said.instance_id,
            public_key=said.public_key,
            app_slug=said.app_slug,
            app_name=said.app_name,
            app_version=said.app_version,
            version_rank=version_rank(said.app_version),
            environment=said.environment,
            deployment_mode=said.deployment_mode,
            os_arch=said.os_arch,
        )
        assert verdict is not None  # noqa: S101 - the statement always answers
        return RegistrationResult(verdict)

    async def confirm_key(self, instance_id: str, public_key: bytes) -> str:
        """A signature of this key held: what was staged takes effect, and the instance becomes active.

        Returns the status, which stays pending where an admin has to approve. Raises Forbidden for an instance that is
        unknown, revoked, or has another key by now.
        """
        known = {"instance_id": instance_id, "public_key": public_key}
        claim = await self._database.fetch_one(_Claim, "instances.select_staged", **known)
        status = None
        if claim is not None:
            await self._database.execute("applications.insert_missing", slug=claim.slug, name=claim.name)
            status = await self._database.fetch_value(
                str, "instances.confirm_key", approval_wanted=self._approval_wanted, **_staged(claim.staged), **known
            )
        if status is None:
            self.evict_key(instance_id)
            raise unknown_instance()
        return status

    async def set_status(self, instance_id: str, status: str) -> None:
        """An admin's decision: `active` or `revoked`, the latter for good. It counts in every server at once."""
        await self._database.execute("instances.set_status", instance_id=instance_id, status=status)

    async def rotate(self, instance_id: str, public_key: bytes, new_key: bytes) -> None:
        """Another key from now on, in every server. Raises Forbidden as `prove`, which it does too."""
        await self.confirm_key(instance_id, public_key)
        rotated = await self._database.execute(
            "instances.rotate_key", instance_id=instance_id, public_key=public_key, new_key=new_key
        )
        self.evict_key(instance_id)
        if not rotated:  # another rotate or a revocation came in between
            raise unknown_instance()

    async def erase(self, instance_id: str, public_key: bytes) -> ErasureReceipt:
        """Deletes everything held on an instance, which asked for it itself. Raises Forbidden as `prove`."""
        receipt = await self._erase(instance_id, public_key)
        if receipt is None:
            raise unknown_instance()
        return receipt

    async def delete(self, instance_id: str) -> bool:
        """Deletes everything held on an instance, as an admin wants it; False where there was none."""
        return await self._erase(instance_id, None) is not None

    async def _erase(self, instance_id: str, public_key: bytes | None) -> ErasureReceipt | None:
        who = {"instance_id": instance_id, "public_key": public_key}
        past: list[_Erased] = []
        while True:
            page = await self._database.fetch_one(_Erased, "erasure.delete_oldest_snapshots", limit=ERASE_PAGE, **who)
            if page is None or not page.snapshots:
                break
            past.append(page)
        receipt = await self._database.fetch_one(ErasureReceipt, "erasure.delete_instance", **who)
        self.evict_key(instance_id)
        if receipt is None or not past:
            return receipt
        newest = receipt.newest_snapshot_at or past[-1].newest_snapshot_at
        return replace(
            receipt,
            snapshots=receipt.snapshots + sum(page.snapshots for page in past),
            oldest_snapshot_at=min(filter(None, (past[0].oldest_snapshot_at, receipt.oldest_snapshot_at))),
            newest_snapshot_at=newest,
        )

    async def export_instance(self, instance_id: str) -> dict[str, object]:
        """Everything known of an instance but its snapshots. Raises Forbidden where there is none."""
        found = await self._database.fetch_one(dict, "instances.export_instance", instance_id=instance_id)
        if found is None:
            raise unknown_instance()
        return found

    async def export_snapshots(self, instance_id: str) -> AsyncIterator[list[dict[str, object]]]:
        """All snapshots of an instance, oldest first, some at a time."""
        after: object = "-infinity"
        while True:
            page = await self._database.fetch(
                dict, "instances.export_snapshots", instance_id=instance_id, after=after, limit=EXPORT_PAGE
            )
            if page:
                yield page
            if len(page) < EXPORT_PAGE:
                return
            after = page[-1]["snapshot_at"]

    async def refresh_due(self) -> bool:
        """Places instances anew that time alone has moved, the ones that are due longest; whether there may be more."""
        if not await self._database.fetch_value(bool, "instances.is_refresh_due"):  # spares the writers' lock
            return False
        until = time.monotonic() + REFRESH_DURATION_S
        while time.monotonic() < until:
            swept = await self._database.fetch_value(int, "instances.refresh_due", limit=REFRESH_PAGE)
            if swept is None or swept < REFRESH_PAGE:
                return False
            await asyncio.sleep(REFRESH_PAUSE_S)
        return True

    async def purge_unconfirmed(self) -> bool:
        """Removes instances that never proved their key, the oldest thousand; whether there may be more."""
        return (
            await self._database.execute("erasure.delete_unconfirmed", age=self._pending_age, limit=PURGE_PAGE)
            == PURGE_PAGE
        )


def _staged(staged: msgspec.Raw | None) -> dict[str, str | None]:
    """What is staged of an instance, as the statement takes it, with the rank of the version in it."""
    if staged is None:
        return {"staged": None, "version_rank": None}
    said = msgspec.json.decode(staged, type=_Staged)
    return {
        "staged": bytes(staged).decode(),
        "version_rank": None if said.app_version is None else version_rank(said.app_version),
    }


def unknown_instance() -> Forbidden:
    """The refusal for whoever is not known, or no longer."""
    return Forbidden("unknown_instance", "This instance is not registered here, or it is revoked.")
