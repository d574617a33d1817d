"""Stores what another database holds, of the original or of SHM: applications, instances with their keys, snapshots.

Everything is stored as it was: an instance keeps its times, and a snapshot is no sign of life. A second run stores what
is missing, so an interrupted one is continued by starting it again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.original_database import OriginalApplication, OriginalInstance, OriginalSnapshot
from shm.ingest.batch_writer import MAX_BATCH_LEAVES, StoredRow, Verdict, encode_batch
from shm.ingest.group_commit import Failure, write_isolated
from shm.ingest.imported_rows import ImportedApplication, ImportedInstance, SkippedRow
from shm.ingest.key_limits import aggregation_limits
from shm.ingest.original_rows import parse_application, parse_instance, parse_snapshot
from shm.ingest.payloads import Snapshot

MAX_TIME_AHEAD = timedelta(minutes=5)  # of a snapshot before the present; a later one would stay the newest for long
MAX_BYTES_FACTOR = 2  # of SHM_MAX_BODY: PostgreSQL writes JSON with spaces
SKIPPED_DAYS = "daily values of applications that already have a history on this server, or do not exist on it"

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class _Verdict:
    position: int
    verdict: str


@dataclass(frozen=True, slots=True)
class _StoredDays:
    stored: int
    refused: int


@dataclass(slots=True)
class ImportResult:
    """The numbers of stored rows, of rows that were there before, and of skipped rows by reason."""

    applications: int = 0
    instances: int = 0
    known_instances: int = 0
    snapshots: int = 0
    known_snapshots: int = 0
    days: int = 0  # values of charts
    skipped: Counter[str] = field(default_factory=Counter)


class HistoryImporter:
    """Stores rows of another database in this one."""

    def __init__(self, database: Database, settings: Settings, *, keeps_revoked: bool = False) -> None:
        """`keeps_revoked`: the history of revoked instances is stored too. Pending ones have none."""
        self.result = ImportResult()
        self._database = database
        self._settings = settings
        self._keeps_revoked = keeps_revoked
        self._keys: dict[str, bytes] = {}  # of the instances whose snapshots are stored
        self._instances: list[ImportedInstance] = []  # of SHM, whose snapshots are stored

    async def store_applications(self, applications: Iterable[OriginalApplication]) -> None:
        """Stores a page of applications under the slugs of their names; their old slugs become aliases."""
        await self.store_parsed_applications(
            self.parse(applications, lambda row: parse_application(row, self._settings))
        )

    async def store_parsed_applications(self, applications: Iterable[ImportedApplication]) -> None:
        """The same for applications that are valid."""
        batch = list(applications)
        self.result.applications += await self._database.execute("import.store_applications", batch=_encode(batch))

    async def store_aliases(self, aliases: Sequence[object]) -> None:
        """Stores a page of names under which installs register with an application."""
        await self._database.execute("import.store_aliases", batch=_encode(aliases))

    async def freeze_history(self, raw_since: datetime, frozen_until: datetime) -> None:
        """Records from when on the snapshots of the other database are complete, and the days that these determine."""
        await self._database.execute("import.freeze_history", raw_since=raw_since, frozen_until=frozen_until)

    async def store_days(self, days: Iterable[object], database: str, frozen_until: datetime) -> None:
        """Stores a page of values of days before `frozen_until`, from the database with the hash key of this name."""
        batch = _encode(list(days))
        (stored,) = await self._database.fetch(
            _StoredDays, "import.store_days", batch=batch, database=database, frozen_until=frozen_until
        )
        self.result.days += stored.stored
        if stored.refused:
            self.result.skipped[SKIPPED_DAYS] += stored.refused

    def find_key(self, instance_id: str) -> bytes | None:
        """The key of an instance whose snapshots are stored."""
        return self._keys.get(instance_id)

    async def complete_instances(self) -> None:
        """Sets the versions of the instances until now, all of whose snapshots are stored."""
        if self._instances:
            limits = aggregation_limits(self._settings)
            await self._database.execute("import.set_versions", batch=_encode(self._instances), **limits)
        self._keys.clear()
        self._instances.clear()

    async def store_instances(self, instances: Iterable[OriginalInstance]) -> None:
        """Stores a page of instances that were activated."""
        await self.store_parsed_instances(self.parse(instances, lambda row: parse_instance(row, self._settings)))

    async def store_parsed_instances(self, instances: Iterable[ImportedInstance]) -> None:
        """The same for instances that are valid."""
        parsed: dict[str, ImportedInstance] = {}
        for instance in instances:
            if parsed.setdefault(instance.instance_id, instance) is not instance:
                self.result.skipped["installs with the ID of another one"] += 1
        batch = list(parsed.values())
        past: list[ImportedInstance] = []  # those with versions
        for row in await self._database.fetch(_Verdict, "import.store_instances", batch=_encode(batch)):
            instance = batch[row.position - 1]
            if row.verdict in ("new", "known"):
                if instance.versions:
                    past.append(instance)
                if instance.registered_at is not None:
                    self._instances.append(instance)
                if instance.status == "active" or self._keeps_revoked:
                    self._keys[instance.instance_id] = instance.public_key
                self.result.instances += row.verdict == "new"
                self.result.known_instances += row.verdict == "known"
            else:
                reason = {
                    "conflict": "installs that have another key on this server",
                    "erased": "installs that were erased from this server",
                }
                self.result.skipped[reason[row.verdict]] += 1
        if past:
            await self._database.execute("import.store_versions", batch=_encode(past))

    async def store_snapshots(self, snapshots: Iterable[OriginalSnapshot]) -> None:
        """Stores a page of snapshots of active instances."""
        parsed = self.parse(snapshots, lambda row: parse_snapshot(row, self.find_key, self._settings))
        await self.store_parsed_snapshots(parsed)

    async def store_parsed_snapshots(self, snapshots: Iterable[Snapshot]) -> None:
        """The same for snapshots that are valid."""
        parsed: dict[tuple[str, object], Snapshot] = {}
        for snapshot in snapshots:
            if parsed.setdefault((snapshot.instance_id, snapshot.snapshot_at), snapshot) is not snapshot:
                self.result.skipped["snapshots of the same install and time"] += 1
        batch: list[Snapshot] = []
        leaves = 0
        for snapshot in parsed.values():
            batch.append(snapshot)
            leaves += len(snapshot.flattened.keys)
            if leaves >= MAX_BATCH_LEAVES:
                await self._store_batch(batch)
                batch, leaves = [], 0
        if batch:
            await self._store_batch(batch)

    def parse(self, rows: Iterable[Row], parse: Callable[[Row], Parsed]) -> Iterator[Parsed]:
        """The rows that can be imported. Counts the others."""
        for row in rows:
            try:
                yield parse(row)
            except SkippedRow as reason:
                self.result.skipped[str(reason)] += 1

    async def _store_batch(self, batch: Sequence[Snapshot]) -> None:
        for row in await write_isolated("snapshots", self._write, batch):
            if isinstance(row, StoredRow) and row.verdict in (Verdict.STORED, Verdict.STAGED):
                self.result.snapshots += row.is_new
                self.result.known_snapshots += not row.is_new
            elif isinstance(row, StoredRow) and row.verdict == Verdict.PENDING:
                self.result.skipped["snapshots of installs that are pending on this server"] += 1
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
