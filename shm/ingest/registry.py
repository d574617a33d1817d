"""Registration, key confirmation, rotation and status of instances."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from shm.core.errors import Forbidden
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.payloads import Registration

EXPORT_PAGE = 20  # snapshots in one page of a disclosure, 1.3 MB at most: a slow reader keeps one page in memory
REFRESH_PAGE = 500  # instances of a statement: some milliseconds under the writers' lock
REFRESH_MAX_LEAVES = 5_000  # of a statement: instances with many keys change many rows of the tallies
# Time limit of one step. After an outage many instances are due, and every read has to correct for those that remain.
REFRESH_DURATION_S = 1.0
REFRESH_PAUSE_S = 0.02  # between two pages, so that batches of snapshots get the lock
SIGNED_BEFORE_ERASURE = (
    "This install was erased, and the request was signed before that. Sign one with a newer timestamp."
)


class RegistrationResult(StrEnum):
    """The result of a registration."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"
    REVOKED = "revoked"
    OVER_LIMIT = "over_limit"


@dataclass(frozen=True, slots=True)
class _StagedRegistration:
    staged: msgspec.Raw | None
    slug: str
    name: str
    signed_before_erasure: bool


class _Staged(msgspec.Struct):
    app_version: str | None = None


class Registry:
    """Writes the instances of one database."""

    def __init__(self, database: Database, keys: PublicKeyCache, settings: Settings) -> None:
        self._database = database
        self._requires_approval = settings.activation == "manual"
        self._max_keys = settings.max_keys
        self._max_new_installs = settings.max_new_installs if settings.ratelimit_enabled else None
        self._max_values = settings.max_values
        self._keys = keys

    async def public_key(self, instance_id: str, *, refresh: bool = False) -> bytes:
        """As `PublicKeyCache.get`, but raises Forbidden for an unknown instance."""
        key = await self._keys.get(instance_id, refresh=refresh)
        if key is None:
            raise unknown_instance()
        return key

    def cached_key(self, instance_id: str) -> bytes | None:
        """The instance's public key, if it is cached."""
        return self._keys.cached(instance_id)

    def evict_key(self, instance_id: str) -> None:
        """Removes an outdated key from the cache."""
        self._keys.evict(instance_id)

    async def register(self, registration: Registration, *, may_add: bool) -> RegistrationResult:
        """Stores an unauthenticated registration: a new pending instance, or staged changes of an existing one.

        Without `may_add`, a new instance is not stored and the result is OVER_LIMIT.
        """
        verdict = await self._database.fetch_value(
            str,
            "instances.register",
            instance_id=registration.instance_id,
            public_key=registration.public_key,
            app_slug=registration.app_slug,
            app_name=registration.app_name,
            app_version=registration.app_version,
            version_rank=version_rank(registration.app_version),
            environment=registration.environment,
            deployment_mode=registration.deployment_mode,
            os_arch=registration.os_arch,
            may_add=may_add,
        )
        assert verdict is not None  # noqa: S101 - the statement always returns a row
        return RegistrationResult(verdict)

    async def confirm_key(self, instance_id: str, public_key: bytes, signed_at: datetime | None = None) -> str:
        """Applies the staged changes and activates the instance, after a signature by this key was verified.

        `signed_at`: the time in the signed body. A body without one may be a replay: it counts as a sign of life only
        the first time, and is refused for an instance that was erased. Returns the status, which stays `pending` where
        an admin has to approve. Raises Forbidden for an instance that is unknown or revoked or has another key.
        """
        selector = {"instance_id": instance_id, "public_key": public_key, "signed_at": signed_at}
        registration = await self._database.fetch_one(_StagedRegistration, "instances.select_staged", **selector)
        status = None
        if registration is not None and registration.signed_before_erasure:
            raise Forbidden("signed_before_erasure", SIGNED_BEFORE_ERASURE)
        if registration is not None:
            await self._database.execute("applications.insert_missing", slug=registration.slug, name=registration.name)
            status = await self._database.fetch_value(
                str,
                "instances.confirm_key",
                requires_approval=self._requires_approval,
                max_keys=self._max_keys,
                max_values=self._max_values,
                max_new_installs=self._max_new_installs,
                **_staged_parameters(registration.staged),
                **selector,
            )
        if status is None:
            self.evict_key(instance_id)
            raise unknown_instance()
        return status

    async def record_action(self, body: bytes, signed_at: datetime) -> None:
        """Records a signed action, by the hash of its body, before it is carried out. Raises Forbidden for a replay."""
        action = {"action_hash": hashlib.sha256(body).digest(), "signed_at": signed_at}
        if not await self._database.execute("erasure.record_action", **action):
            raise Forbidden("replayed", "This request was carried out before. Sign a new one with the present time.")

    async def set_status(self, instance_id: str, status: str) -> None:
        """Sets `active` or `revoked`, which is final, on behalf of an admin. Takes effect in all servers at once."""
        await self._database.execute("instances.set_status", instance_id=instance_id, status=status)
        if status == "revoked":
            await self._database.execute("instances.end_series", instance_id=instance_id)

    async def rotate(self, instance_id: str, public_key: bytes, new_key: bytes, signed_at: datetime) -> None:
        """Replaces the public key, in all servers, after `confirm_key` with the old one. Raises as that does."""
        await self.confirm_key(instance_id, public_key, signed_at)
        rotated = await self._database.execute(
            "instances.rotate_key", instance_id=instance_id, public_key=public_key, new_key=new_key
        )
        self.evict_key(instance_id)
        if not rotated:  # a concurrent rotation or revocation preceded this one
            raise unknown_instance()

    async def export_instance(self, instance_id: str) -> dict[str, object]:
        """All stored data of an instance except its snapshots. Raises Forbidden if it does not exist."""
        row = await self._database.fetch_one(dict, "instances.export_instance", instance_id=instance_id)
        if row is None:
            raise unknown_instance()
        return row

    async def export_snapshots(self, instance_id: str) -> AsyncIterator[list[dict[str, object]]]:
        """All snapshots of an instance, oldest first, in pages."""
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
        """Recomputes the tallies of instances whose activity changed by the passing of time, longest due first.

        Returns whether more may be due.
        """
        if not await self._database.fetch_value(bool, "instances.is_refresh_due"):  # a check without the writers' lock
            return False
        deadline = time.monotonic() + REFRESH_DURATION_S
        while time.monotonic() < deadline:
            if not await self._database.fetch_value(
                int, "instances.refresh_due", limit=REFRESH_PAGE, max_leaves=REFRESH_MAX_LEAVES
            ):
                return False
            await asyncio.sleep(REFRESH_PAUSE_S)
        return True


def _staged_parameters(staged: msgspec.Raw | None) -> dict[str, str | None]:
    """The staged changes as parameters of the statement, with the rank of their version."""
    if staged is None:
        return {"staged": None, "version_rank": None}
    changes = msgspec.json.decode(staged, type=_Staged)
    return {
        "staged": bytes(staged).decode(),
        "version_rank": None if changes.app_version is None else version_rank(changes.app_version),
    }


def unknown_instance() -> Forbidden:
    """The refusal for an unknown or revoked instance."""
    return Forbidden("unknown_instance", "This instance is not registered here, or it is revoked.")
