"""Stores a complete export of another server of SHM, line by line, as strictly as requests of installs.

A line that is not a record ends the import with its number; the lines before it are stored. A record that this server
would not accept from an install or an admin is skipped and counted. A second run stores the missing records.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import BinaryIO

import msgspec

from shm.core.errors import BadRequest, ConfigurationError
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.ingest.export_records import (
    FORMAT,
    MAX_LINE_BYTES,
    VERSION,
    AliasRecord,
    ApplicationRecord,
    DayRecord,
    End,
    Header,
    HistoryRecord,
    InstanceRecord,
    Record,
    SnapshotRecord,
    decode_record,
)
from shm.ingest.flattening import flatten
from shm.ingest.history_import import MAX_TIME_AHEAD, HistoryImporter
from shm.ingest.imported_rows import ImportedApplication, ImportedInstance, SkippedRow, parse_text, parse_url
from shm.ingest.metric_hints import parse_hints
from shm.ingest.payloads import Snapshot
from shm.ingest.signatures import parse_public_key

PAGE_SIZE = 500  # records of a statement; the export has as many instances before their snapshots
MIN_TIME = datetime(
    2000, 1, 1, tzinfo=UTC
)  # of all times that are stored: PostgreSQL's and Python's first years differ


class FullImport:
    """One import from a file. `lines`: those that were read; `instances`: those that were read, `expected` in all."""

    def __init__(self, importer: HistoryImporter, settings: Settings, now: datetime) -> None:
        self.lines = 0
        self.instances = 0
        self.expected = 0
        self._importer = importer
        self._settings = settings
        self._now = now
        self._history: HistoryRecord | None = None  # of the days that follow it

    async def store_page(self, file: BinaryIO, name: str) -> bool:
        """Stores the next lines of a file. Returns False at its end.

        Raises ConfigurationError, which names the line.
        """
        page: list[Record] = []
        while len(page) < PAGE_SIZE:
            try:
                record = self._read(file, name)
            except ConfigurationError:
                await self._store(page)
                raise
            if isinstance(record, End):
                await self._store(page)
                await self._importer.complete_instances()
                if file.read(1):
                    raise self._invalid(name, "more lines follow the last one", self.lines + 1)
                return False
            if page and type(page[0]) is not type(record):
                await self._store(page)
                page.clear()
            page.append(record)
        await self._store(page)
        return True

    def _read(self, file: BinaryIO, name: str) -> Record:
        line = file.readline(MAX_LINE_BYTES + 1)
        self.lines += 1
        if not line:
            raise self._invalid(name, "the file ends before its last line, so the export was interrupted")
        if len(line) > MAX_LINE_BYTES:
            raise self._invalid(name, f"the line has more than {MAX_LINE_BYTES} bytes")
        try:
            record = decode_record(line)
        except BadRequest as error:
            if self.lines == 1:
                raise self._invalid(name, "no export of `shm export --all` begins like this") from None
            raise self._invalid(name, error.detail) from None
        if isinstance(record, Header) != (self.lines == 1):
            raise self._invalid(name, "the header has to be the first line, once")
        if isinstance(record, Header):
            if record.format != FORMAT or record.version > VERSION:
                raise self._invalid(name, f"{record.format} {record.version} needs a newer release of SHM")
            self.expected = record.instances
        if isinstance(record, End) and record.records != self.lines - 1:
            raise self._invalid(
                name, f"{record.records} lines were written before this one: lines are missing or added"
            )
        return record

    async def _store(self, page: Sequence[Record]) -> None:
        """Stores records of one type."""
        importer = self._importer
        match page[0] if page else None:
            case ApplicationRecord():
                await importer.store_parsed_applications(importer.parse(page, self._parse_application))
            case AliasRecord():
                await importer.store_aliases(page)
            case HistoryRecord():
                self._history = self._parse_history(page[-1])
                await importer.freeze_history(self._history.raw_since, self._history.frozen_until)
            case DayRecord():
                days = list(importer.parse(page, self._parse_day))
                if self._history is not None:
                    await importer.store_days(days, self._history.database, self._history.frozen_until)
            case InstanceRecord():
                await importer.complete_instances()  # the snapshots of the page before
                await importer.store_parsed_instances(importer.parse(page, self._parse_instance))
                self.instances += len(page)
            case SnapshotRecord():
                await importer.store_parsed_snapshots(importer.parse(page, self._parse_snapshot))

    def _parse_application(self, record: Record) -> ImportedApplication:
        assert isinstance(record, ApplicationRecord)  # noqa: S101  # of a page of them
        try:
            name = parse_text(record.name, self._settings)
        except BadRequest:
            name = ""
        if not name:
            raise SkippedRow("applications with an invalid name")
        return ImportedApplication(
            id=record.id,
            slug=record.slug,
            old_slug=None,
            name=name,
            github_url=parse_url(record.github_url),
            logo_url=parse_url(record.logo_url),
            stars=record.stars,
            stars_updated_at=self._clamp_or_none(record.stars_updated_at),
            created_at=self._clamp(record.created_at),
            overrides=record.overrides,
            public_metrics=record.public_metrics,
        )

    def _parse_history(self, record: Record) -> HistoryRecord:
        assert isinstance(record, HistoryRecord)  # noqa: S101  # of a page of them
        until = self._clamp(record.frozen_until).astimezone(UTC)
        return HistoryRecord(record.database, self._clamp(record.raw_since), datetime.combine(until, time.min, UTC))

    def _parse_day(self, record: Record) -> DayRecord:
        assert isinstance(record, DayRecord)  # noqa: S101  # of a page of them
        if self._history is None:
            raise SkippedRow("daily values without a history before them")
        if not MIN_TIME <= record.at < self._history.frozen_until or record.at.astimezone(UTC).time() != time.min:
            raise SkippedRow("daily values that are of no midnight before the end of the history")
        return record

    def _parse_instance(self, record: Record) -> ImportedInstance:
        assert isinstance(record, InstanceRecord)  # noqa: S101  # of a page of them
        texts = (record.app_name, record.app_version, record.environment, record.deployment_mode, record.os_arch)
        try:
            key = parse_public_key("public_key", record.public_key)
            app_name, app_version, environment, deployment_mode, os_arch = (
                parse_text(text, self._settings) for text in texts
            )
        except BadRequest:
            raise SkippedRow("installs with an invalid key or text") from None
        return ImportedInstance(
            instance_id=record.instance_id,
            public_key=key,
            app_slug=record.app_slug,
            app_name=app_name,
            app_version=app_version,
            version_rank=version_rank(app_version),
            environment=environment,
            deployment_mode=deployment_mode,
            os_arch=os_arch,
            status=record.status,
            first_seen_at=self._clamp_or_none(record.first_seen_at),
            last_seen_at=self._clamp_or_none(record.last_seen_at),
            registered_at=self._clamp(record.registered_at),
            revoked_at=self._clamp_or_none(record.revoked_at),
            erased_at=self._clamp_or_none(record.erased_at),
            needs_approval=record.needs_approval and record.status == "pending",
            previous_app_slug=record.previous_app_slug,
            hints=parse_hints(record.hints, self._settings.max_key) if record.hints else None,
            absences=[
                msgspec.structs.replace(each, lost_at=lost_at, returned_at=returned_at)
                for each in record.absences
                if (lost_at := self._clamp(each.lost_at)) < (returned_at := self._clamp(each.returned_at))
            ],
            versions=[
                msgspec.structs.replace(each, first_at=self._clamp(each.first_at))
                for each in record.versions
                if len(each.version) <= self._settings.max_name
            ],
        )

    def _parse_snapshot(self, record: Record) -> Snapshot:
        assert isinstance(record, SnapshotRecord)  # noqa: S101  # of a page of them
        # Of the time before the raw snapshots, the file has only those that installs show.
        is_shown = self._history is not None and MIN_TIME <= record.snapshot_at < self._history.raw_since
        if record.snapshot_at < self._now - self._settings.retention and not is_shown:
            raise SkippedRow("snapshots older than SHM_RETENTION")
        if record.snapshot_at > self._now + MAX_TIME_AHEAD:
            raise SkippedRow("snapshots of the future or of no time")
        key = self._importer.find_key(record.instance_id)
        if key is None:
            raise SkippedRow("snapshots of installs that are skipped or not in the file before them")
        try:
            flattened = flatten(record.metrics, self._settings)
            version = parse_text(record.app_version, self._settings)
        except BadRequest as refusal:
            raise SkippedRow(f"snapshots that are refused ({refusal.code})") from None
        return Snapshot(
            instance_id=record.instance_id,
            public_key=key,
            snapshot_at=record.snapshot_at.astimezone(UTC),
            flattened=flattened,
            app_version=version,
            sequence=record.sequence,
            app_slug=record.app_slug,
            received_at=self._clamp(record.received_at),
        )

    def _clamp(self, value: datetime) -> datetime:
        """A time that can be stored, and that is not in the future."""
        return max(MIN_TIME, min(value, self._now))

    def _clamp_or_none(self, value: datetime | None) -> datetime | None:
        return None if value is None else self._clamp(value)

    def _invalid(self, name: str, problem: str, line: int | None = None) -> ConfigurationError:
        return ConfigurationError(
            f"{name}, line {line or self.lines}: {problem.rstrip('.')}. The lines before it are imported."
        )
