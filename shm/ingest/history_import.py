"""Stores what a database of the original holds: applications, instances with their keys, snapshots.

Everything is stored as it was: an instance keeps its times, and a snapshot is no sign of life. A second run stores what
is missing, so an interrupted one is continued by starting it again.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from shm.core import slugs
from shm.core.errors import BadRequest
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.original_database import OriginalApplication, OriginalInstance, OriginalSnapshot
from shm.ingest.batch_writer import MAX_BATCH_LEAVES, StoredRow, Verdict, encode_batch
from shm.ingest.flattening import check_text, flatten
from shm.ingest.group_commit import Failure, write_isolated
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.payloads import Snapshot, decode_metrics
from shm.ingest.signatures import parse_public_key

logger = logging.getLogger(__name__)

MAX_AHEAD = timedelta(minutes=5)  # of a snapshot before the present; a later one would stay the newest for long

_encoder = msgspec.json.Encoder()


class _Instance(msgspec.Struct):
    instance_id: str
    public_key: bytes
    app_slug: str
    app_name: str
    app_version: str
    version_rank: str
    environment: str
    deployment_mode: str
    os_arch: str
    status: str
    first_seen_at: object
    last_seen_at: object


@dataclass(frozen=True, slots=True)
class _Verdict:
    position: int
    verdict: str


@dataclass(slots=True)
class ImportResult:
    """What was stored, what was there before, and what was skipped, by reason."""

    applications: int = 0
    instances: int = 0
    known_instances: int = 0
    snapshots: int = 0
    known_snapshots: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


class HistoryImporter:
    """Stores rows of the original in one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.result = ImportResult()
        self._database = database
        self._settings = settings
        self._keys: dict[str, bytes] = {}  # of the instances whose snapshots are stored

    async def store_applications(self, applications: Iterable[OriginalApplication]) -> None:
        """Stores applications under the slugs of their names; their old slugs become aliases."""
        batch = [
            {
                "id": each.id,
                "slug": slugs.make_slug(each.name),
                "old_slug": each.slug,
                "name": each.name,
                "github_url": each.github_url or None,
                "logo_url": each.logo_url or None,
                "stars": max(0, each.stars),
                "stars_updated_at": each.stars_updated_at,
                "created_at": each.created_at,
            }
            for each in applications
        ]
        self.result.applications += await self._database.execute("import.store_applications", batch=_encode(batch))

    async def store_instances(self, instances: Sequence[OriginalInstance]) -> None:
        """Stores instances that were activated."""
        batch = [parsed for each in instances if (parsed := self._parse_instance(each)) is not None]
        if not batch:
            return
        rows = await self._database.fetch(_Verdict, "import.store_instances", batch=_encode(batch))
        for row in rows:
            instance = batch[row.position - 1]
            if row.verdict in ("new", "known"):
                if instance.status == "active":
                    self._keys[instance.instance_id] = instance.public_key
                self.result.instances += row.verdict == "new"
                self.result.known_instances += row.verdict == "known"
            else:
                reason = {"conflict": "installs that have another key here", "erased": "installs that were erased here"}
                self.result.skipped[reason[row.verdict]] += 1

    def _parse_instance(self, instance: OriginalInstance) -> _Instance | None:
        if instance.status == "pending":
            self.result.skipped["installs that never proved their key"] += 1
            return None
        try:
            digits = bytes.fromhex(instance.public_key).decode()  # the column has the digits as text
            key = parse_public_key("public_key", digits)
            for text in (instance.app_name, instance.app_version, instance.environment):
                check_text(text, "a text", self._settings.max_name)
        except (BadRequest, ValueError):
            self.result.skipped["installs with an invalid key or text"] += 1
            return None
        if not instance.app_name.strip():
            self.result.skipped["installs without an application"] += 1
            return None
        return _Instance(
            instance.instance_id,
            key,
            slugs.make_slug(instance.app_name),
            instance.app_name,
            instance.app_version,
            version_rank(instance.app_version),
            instance.environment,
            instance.deployment_mode,
            instance.os_arch,
            "revoked" if instance.status == "revoked" else "active",
            instance.created_at,
            max(instance.created_at, instance.last_seen_at),
        )

    async def store_snapshots(self, snapshots: Sequence[OriginalSnapshot]) -> None:
        """Stores snapshots of active instances within the retention."""
        parsed: dict[tuple[str, object], Snapshot] = {}
        for each in snapshots:
            snapshot = self._parse_snapshot(each)
            if snapshot is not None:
                if (snapshot.instance_id, snapshot.snapshot_at) in parsed:
                    self.result.skipped["snapshots of the same install and time"] += 1
                parsed.setdefault((snapshot.instance_id, snapshot.snapshot_at), snapshot)
        batch: list[Snapshot] = []
        leaves = 0
        for snapshot in parsed.values():
            batch.append(snapshot)
            leaves += len(snapshot.keys)
            if leaves >= MAX_BATCH_LEAVES:
                await self._store_batch(batch)
                batch, leaves = [], 0
        if batch:
            await self._store_batch(batch)

    def _parse_snapshot(self, row: OriginalSnapshot) -> Snapshot | None:
        if row.is_expired:
            self.result.skipped["snapshots older than SHM_RETENTION"] += 1
            return None
        if row.snapshot_at > self._database.clock.now() + MAX_AHEAD:
            self.result.skipped["snapshots of the future"] += 1
            return None
        key = self._keys.get(row.instance_id)
        if key is None:
            self.result.skipped["snapshots of installs that are revoked or skipped"] += 1
            return None
        try:
            flattened = flatten(decode_metrics(row.data.encode()), self._settings)
        except BadRequest as refusal:
            self.result.skipped[f"snapshots over a limit ({refusal.code})"] += 1
            return None
        return Snapshot(
            instance_id=row.instance_id,
            public_key=key,
            snapshot_at=row.snapshot_at,
            metrics=flattened.metrics,
            leaves=flattened.leaves,
            keys=flattened.keys,
            strings=flattened.strings,
            app_version=None,
            version_rank=None,
            sequence=None,
        )

    async def _store_batch(self, batch: Sequence[Snapshot]) -> None:
        for row in await write_isolated("snapshots", self._write, batch):
            if isinstance(row, StoredRow) and row.verdict in (Verdict.STORED, Verdict.STAGED):
                self.result.snapshots += row.is_new
                self.result.known_snapshots += not row.is_new
            else:
                self.result.skipped["snapshots that cannot be stored"] += 1

    async def _write(self, batch: Sequence[Snapshot]) -> Sequence[StoredRow | Failure]:
        rows = await self._fetch("intake.store_batch", batch)
        new = [index for index, row in enumerate(rows) if row.verdict == Verdict.NEW_KEYS]
        if new:
            limits = aggregation_limits(self._settings)
            added = await self._fetch("intake.store_new_keys", [batch[index] for index in new], **limits)
            for index, row in zip(new, added, strict=True):
                rows[index] = row
        return rows

    async def _fetch(self, statement: str, batch: Sequence[Snapshot], **limits: int) -> list[StoredRow]:
        rows = await self._database.fetch(StoredRow, statement, **encode_batch(batch), is_import=True, **limits)
        return sorted(rows, key=lambda row: row.position)


def _encode(rows: Sequence[object]) -> str:
    return _encoder.encode(rows).decode()
