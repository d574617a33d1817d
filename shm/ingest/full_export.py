"""Reads everything of a database that `shm import` moves into another one, page by page, while servers run.

Tokens, the audit trail, events and hashes of erased installs stay where they are. An install that registers or is
erased while the pages are read is in the export or not.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from shm.core.settings import Settings
from shm.db.database import Database
from shm.ingest.export_records import (
    FORMAT,
    VERSION,
    AliasRecord,
    ApplicationRecord,
    DayRecord,
    End,
    Header,
    HistoryRecord,
    InstanceRecord,
    SnapshotRecord,
    encode_record,
)

T = TypeVar("T")

PAGE_SIZE = 500  # rows of a statement; as snapshots of the maximum size at most 32 MiB
FIRST_ID = "00000000-0000-0000-0000-000000000000"
FIRST_TIME = datetime(1, 1, 1, tzinfo=UTC)
FIRST_DAY = {"app_slug": "", "metric_type": "", "key": "", "value": "", "at": FIRST_TIME}


@dataclass(frozen=True, slots=True)
class _History:
    instances: int
    raw_since: datetime | None
    frozen_until: datetime | None


class FullExport:
    """One export. `counts`: the records until now, by type."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.counts: Counter[type[object]] = Counter()
        self.instances = 0  # in the database at the start
        self._database = database
        self._retention = settings.retention  # of raw snapshots: older ones are about to be deleted

    async def read_lines(self) -> AsyncGenerator[bytes, None]:
        """The lines, several at a time."""
        oldest = self._database.clock.now() - self._retention
        history = await self._database.fetch_one(_History, "full_export.select_history", oldest=oldest)
        assert history is not None  # noqa: S101  # one row
        self.instances = history.instances
        yield self._encode([Header(FORMAT, VERSION, self._database.clock.now(), history.instances)])
        async for records in self._read_all(history):
            yield self._encode(records)
        yield encode_record(End(self.counts.total()))

    def _encode(self, records: Sequence[object]) -> bytes:
        self.counts.update(map(type, records))
        return b"".join(map(encode_record, records))

    async def _read_all(self, history: _History) -> AsyncIterator[Sequence[object]]:
        async for applications in self._read_by_slug(ApplicationRecord, "full_export.select_applications"):
            yield applications
        async for aliases in self._read_by_slug(AliasRecord, "full_export.select_aliases"):
            yield aliases
        if history.raw_since is not None and history.frozen_until is not None:
            key = await self._database.fetch_value(str, "erasure.select_hash_key_name")
            assert key is not None  # noqa: S101  # one row
            yield [HistoryRecord(key, history.raw_since, history.frozen_until)]
            async for days in self._read_days(history.frozen_until):
                yield days
        after, raw_since = FIRST_ID, history.raw_since
        while instances := await self._fetch(
            InstanceRecord, "full_export.select_instances", after=after, raw_since=raw_since
        ):
            yield instances
            last = instances[-1].instance_id
            instance_ids = {each.instance_id for each in instances}
            async for snapshots in self._read_snapshots(instance_ids, after, last, raw_since):
                yield snapshots
            after = last

    async def _read_by_slug(
        self, record_type: type[ApplicationRecord | AliasRecord], statement: str
    ) -> AsyncIterator[Sequence[ApplicationRecord | AliasRecord]]:
        after = ""
        while page := await self._fetch(record_type, statement, after=after):
            yield page
            after = page[-1].slug

    async def _read_days(self, until: datetime) -> AsyncIterator[Sequence[DayRecord]]:
        after: dict[str, object] = {**FIRST_DAY}
        while page := await self._fetch(DayRecord, "full_export.select_days", until=until, **after):
            yield page
            after = {name: getattr(page[-1], name) for name in FIRST_DAY}

    async def _read_snapshots(
        self, instance_ids: set[str], after_id: str, last_id: str, raw_since: datetime | None
    ) -> AsyncIterator[Sequence[SnapshotRecord]]:
        """Pages of the snapshots of these instances, which are all between two IDs."""
        after_at = datetime.max.replace(tzinfo=UTC)  # no snapshot of `after_id` itself
        while page := await self._fetch(
            SnapshotRecord,
            "full_export.select_snapshots",
            after_id=after_id,
            after_at=after_at,
            last_id=last_id,
            raw_since=raw_since,
        ):
            yield [each for each in page if each.instance_id in instance_ids]  # others have registered since
            after_id, after_at = page[-1].instance_id, page[-1].snapshot_at

    async def _fetch(self, row_type: type[T], statement: str, **parameters: object) -> Sequence[T]:
        """A page. JSON documents in it stay as they are stored, unparsed."""
        return await self._database.fetch(row_type, statement, limit=PAGE_SIZE, **parameters)
