"""Writes registrations and confirmed keys, many in one transaction, so that a new fleet enrols at once."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.ingest.group_commit import BatchLimits, GroupCommit
from shm.ingest.instance_rows import InstanceRow
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.payloads import Registration

MAX_MOVES = 4  # of installs to another application, each with all of its values, in one transaction
MAX_BATCH = 100  # registrations or confirmations in one transaction: some milliseconds under the writers' lock
MAX_BATCH_HINTS = 128 * 1024  # bytes of hints, beyond which a batch takes no more: some ten milliseconds under the lock

_encoder = msgspec.json.Encoder()


class RegistrationResult(StrEnum):
    """The result of a registration; the values of the statement."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"
    ERASED = "erased"
    REFUSED = "refused"
    OVER_LIMIT = "over_limit"
    REPLAYED = "replayed"


class Confirmation(StrEnum):
    """The result of a confirmed key; the values of the statement."""

    ACTIVE = "active"
    PENDING = "pending"
    UNKNOWN = "unknown"
    ERASED = "erased"
    REPLAYED = "replayed"
    DEFERRED = "deferred"  # never returned by `confirm`: the key waits for a later batch


class _NewRegistration(InstanceRow, kw_only=True):
    """A registration as the statement reads it. `action_hash` and `signed_at`: of a signed one with a time."""

    may_create: bool
    signed_at: datetime | None
    action_hash: bytes | None


class _KeyConfirmation(msgspec.Struct):
    """A key that signed a request, as the statement reads it."""

    instance_id: str
    public_key: bytes
    signed_at: datetime | None
    action_hash: bytes | None
    request_id: str | None
    hints: msgspec.Raw | None


@dataclass(frozen=True, slots=True)
class _Registered:
    position: int
    verdict: str


@dataclass(frozen=True, slots=True)
class _Confirmed:
    position: int
    verdict: str
    unranked_version: str | None


class EnrolmentWriter:
    """Writes registrations and confirmed keys to the database; no other code does."""

    def __init__(self, database: Database, settings: Settings, write_lock: asyncio.Lock) -> None:
        self._database = database
        self._limits = {
            "requires_approval": settings.activation == "manual",
            **aggregation_limits(settings),
            "max_moves": MAX_MOVES,
            "max_new_installs": settings.max_new_installs if settings.ratelimit_enabled else None,
            "max_new_applications": settings.max_new_applications if settings.ratelimit_enabled else None,
        }
        # One member of a batch for each instance: the statements compare a member with what is stored.
        self._registrations: GroupCommit[_NewRegistration, RegistrationResult] = GroupCommit(
            "registrations",
            self._write_registrations,
            BatchLimits(settings.queue, MAX_BATCH, is_distinct=True),
            write_lock,
        )
        self._confirmations: GroupCommit[_KeyConfirmation, Confirmation] = GroupCommit(
            "confirmations",
            self._write_confirmations,
            BatchLimits(
                settings.queue,
                MAX_BATCH,
                weigh=lambda key: 0 if key.hints is None else len(key.hints),
                max_weight=MAX_BATCH_HINTS,
                is_distinct=True,
            ),
            write_lock,
        )

    async def register(
        self, registration: Registration, *, may_create: bool, signed_at: datetime | None, action_hash: bytes | None
    ) -> RegistrationResult:
        """Returns after the registration is committed. Raises Overloaded."""
        row = _NewRegistration(
            instance_id=registration.instance_id,
            public_key=registration.public_key,
            app_slug=registration.app_slug,
            app_name=registration.app_name,
            app_version=registration.app_version,
            version_rank=version_rank(registration.app_version),
            environment=registration.environment,
            deployment_mode=registration.deployment_mode,
            os_arch=registration.os_arch,
            may_create=may_create,
            signed_at=signed_at,
            action_hash=action_hash,
        )
        return await self._registrations.submit(row.instance_id, row)

    async def confirm(
        self,
        instance_id: str,
        public_key: bytes,
        signed_at: datetime | None,
        action_hash: bytes | None,
        hints: msgspec.Raw | None,
    ) -> Confirmation:
        """Returns after the confirmation is committed. Raises Overloaded.

        A deferred one is queued again, so other writes take their turn between the moves of many installs.
        """
        request_id = None if action_hash is None else str(uuid.uuid4())
        row = _KeyConfirmation(instance_id, public_key, signed_at, action_hash, request_id, hints)
        result = Confirmation.DEFERRED
        while result is Confirmation.DEFERRED:
            result = await self._confirmations.submit(instance_id, row)
        return result

    async def run(self) -> None:
        """The writer tasks. Runs until cancelled; cancel it only after all calls have returned."""
        async with run_in_background(self._registrations.run(), self._confirmations.run()):
            await asyncio.Event().wait()

    async def _write_registrations(self, batch: Sequence[_NewRegistration]) -> list[RegistrationResult]:
        rows = await self._database.fetch(_Registered, "enrolment.register_batch", batch=_encode(batch))
        return [RegistrationResult(row.verdict) for row in sorted(rows, key=lambda row: row.position)]

    async def _write_confirmations(self, batch: Sequence[_KeyConfirmation]) -> list[Confirmation]:
        rows = await self._database.fetch(_Confirmed, "enrolment.confirm_batch", batch=_encode(batch), **self._limits)
        for row in rows:
            if row.unranked_version is not None:
                await self._rank(batch[row.position - 1].instance_id, row.unranked_version)
        return [Confirmation(row.verdict) for row in sorted(rows, key=lambda row: row.position)]

    async def _rank(self, instance_id: str, version: str) -> None:
        row = {"instance_id": instance_id, "app_version": version, "version_rank": version_rank(version)}
        await self._database.execute("repair.ranks", rows=_encode([row]))


def _encode(rows: Sequence[object]) -> str:
    """Rows as a JSON array, with bytes in Base64; the order is the position."""
    return _encoder.encode(rows).decode()
