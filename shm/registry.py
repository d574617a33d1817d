"""Who an install is: its public key, its registration, its proof. The rare writes beside the intake.

Public keys are remembered so that a snapshot costs no read. That memory is never trusted with a decision: the
statement that writes compares the key again, and the status, in the database.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from shm.database import Database
from shm.envelope import Registration
from shm.errors import Forbidden
from shm.settings import Settings

REMEMBERED_KEYS = 200_000  # about 200 bytes each: 40 MB for a fleet that reports hourly to this process


class Registered(StrEnum):
    """What became of a registration."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class _Verdict:
    verdict: str


@dataclass(frozen=True, slots=True)
class _Key:
    public_key: memoryview


@dataclass(frozen=True, slots=True)
class _Claim:
    staged: msgspec.Raw | None
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class _Status:
    status: str


class Registry:
    """Registrations and proofs, over one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._approval_wanted = settings.activation == "manual"
        self._keys: OrderedDict[str, bytes] = OrderedDict()

    async def public_key(self, instance_id: str) -> bytes:
        """The instance's Ed25519 public key, 32 bytes. Raises Forbidden for an unknown instance."""
        known = self._keys.get(instance_id)
        if known is not None:
            self._keys.move_to_end(instance_id)
            return known
        row = await self._database.fetch_one(_Key, "instances.public_key", instance_id=instance_id)
        if row is None:
            raise unknown_instance()
        key = bytes(row.public_key)
        self._keys[instance_id] = key
        if len(self._keys) > REMEMBERED_KEYS:
            self._keys.popitem(last=False)
        return key

    def forget(self, instance_id: str) -> None:
        """Drops a remembered key that turned out to be another in the database."""
        self._keys.pop(instance_id, None)

    async def register(self, said: Registration) -> Registered:
        """Writes down an unproven registration: a new pending instance, or something staged for a known one."""
        row = await self._database.fetch_one(
            _Verdict,
            "instances.register",
            instance_id=said.instance_id,
            public_key=said.public_key,
            app_slug=said.app_slug,
            app_name=said.app_name,
            app_version=said.app_version,
            environment=said.environment,
            deployment_mode=said.deployment_mode,
            os_arch=said.os_arch,
        )
        assert row is not None  # noqa: S101 - the statement always answers
        return Registered(row.verdict)

    async def prove(self, instance_id: str, public_key: bytes) -> str:
        """A signature of this key held: what was staged takes effect, and the instance becomes active.

        Returns the status, which stays pending where an admin has to approve. Raises Forbidden for an instance that is
        unknown, revoked, or has another key by now.
        """
        known = {"instance_id": instance_id, "public_key": public_key}
        claim = await self._database.fetch_one(_Claim, "instances.claim", **known)
        row = None
        if claim is not None:
            await self._database.fetch(_Status, "applications.ensure", slug=claim.slug, name=claim.name)
            staged = None if claim.staged is None else bytes(claim.staged).decode()
            row = await self._database.fetch_one(
                _Status, "instances.prove", staged=staged, approval_wanted=self._approval_wanted, **known
            )
        if row is None:
            self.forget(instance_id)
            raise unknown_instance()
        return row.status

    async def decide(self, instance_id: str, status: str) -> None:
        """An admin's decision: `active` or `revoked`, the latter for good. It counts in every server at once."""
        await self._database.fetch(_Status, "instances.decide", instance_id=instance_id, status=status)


def unknown_instance() -> Forbidden:
    """The refusal for whoever is not known, or no longer."""
    return Forbidden("unknown_instance", "This instance is not registered here, or it is revoked.")
