"""The simulated past of a demo, in its own database: `python -m shm.cli.demo.history`.

It gets a year of snapshots of the fleet, and of installs that have ended. They are stored by the statements that also
store reports, and rolled up at once, so that charts, versions and cohorts show what those of a real year would. The
fleet continues with the same identities.
"""

import argparse
import hashlib
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from shm.analytics.rollup import Rollup
from shm.cli import database_command
from shm.cli.demo.applications import Application, Persona, make_former_installs, make_installs
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.core.settings.flags import add_flags
from shm.core.slugs import make_slug
from shm.db.database import Database
from shm.ingest.flattening import flatten
from shm.ingest.history_import import HistoryImporter, ImportResult
from shm.ingest.imported_rows import ImportedInstance
from shm.ingest.payloads import Snapshot, decode_metrics
from shm_sdk.identity import load_or_create

LENGTH = timedelta(days=365)
# The intervals of reports, by their age: fine where charts are, and few enough to be stored in seconds.
INTERVALS = (
    (timedelta(days=7), timedelta(hours=6)),
    (timedelta(days=30), timedelta(days=1)),
    (LENGTH, timedelta(days=10)),
)
PAGE = 500  # snapshots

_encoder = msgspec.json.Encoder()


class _Install(NamedTuple):
    application: Application
    persona: Persona
    instance_id: str
    public_key: bytes


async def store_history(
    database: Database, settings: Settings, folder: Path, count: int, started_at: float
) -> ImportResult:
    """Stores the past of `count` installs, whose identities are in `folder`, up to `started_at` (Unix time)."""
    installs = [*_fleet(folder, count, started_at), *_former_installs(count, started_at)]
    importer = HistoryImporter(database, settings)
    await importer.store_parsed_instances([_make_instance(install, started_at) for install in installs])
    snapshots = iter(sorted(_snapshots(installs, settings, started_at), key=lambda snapshot: snapshot.snapshot_at))
    while page := list(islice(snapshots, PAGE)):
        await importer.store_parsed_snapshots(page)
    rollup = Rollup(database)
    while await rollup.roll_up():
        pass
    return importer.result


def _fleet(folder: Path, count: int, started_at: float) -> Iterator[_Install]:
    for application, persona in make_installs(count, started_at):
        identity = load_or_create(persona.directory(folder), application.name)
        yield _Install(application, persona, identity.instance_id, bytes.fromhex(identity.public_key))


def _former_installs(count: int, started_at: float) -> Iterator[_Install]:
    for application, persona in make_former_installs(count, started_at):
        name = f"{application.name}/{persona.number}/{started_at}"  # so that a second run stores no others
        key = hashlib.sha256(name.encode()).digest()  # of nobody: these installs sign nothing any more
        yield _Install(application, persona, str(uuid.uuid5(uuid.NAMESPACE_URL, name)), key)


def _make_instance(install: _Install, started_at: float) -> ImportedInstance:
    application, persona, instance_id, public_key = install
    last_seen_at = persona.ended_at or started_at
    version = application.version(persona, last_seen_at, started_at)
    return ImportedInstance(
        instance_id=instance_id,
        public_key=public_key,
        app_slug=make_slug(application.name),
        app_name=application.name,
        app_version=version,
        version_rank=version_rank(version),
        environment=persona.environment,
        deployment_mode=persona.deployment_mode,
        os_arch=persona.os_arch,
        status="active",
        first_seen_at=_time(persona.installed_at),
        last_seen_at=_time(last_seen_at),
    )


def _snapshots(installs: list[_Install], settings: Settings, started_at: float) -> Iterator[Snapshot]:
    for application, persona, instance_id, public_key in installs:
        for at in _report_times(persona, started_at):
            metrics = application.report(persona, at)
            flattened = flatten(decode_metrics(_encoder.encode(metrics)), settings)
            yield Snapshot(
                instance_id=instance_id,
                public_key=public_key,
                snapshot_at=_time(at),
                flattened=flattened,
                app_version=application.version(persona, at, started_at),
                sequence=None,
            )


def _report_times(persona: Persona, started_at: float) -> Iterator[float]:
    """The times of an install's reports, newest first. Those of different installs are spread over each interval."""
    phase = persona.update_rank
    newest, oldest = persona.ended_at or started_at, max(persona.installed_at, started_at - LENGTH.total_seconds())
    bound = started_at
    for age, interval in INTERVALS:
        end = max(oldest, started_at - age.total_seconds())
        at = bound - phase * interval.total_seconds()
        while at > end:
            if at <= newest:
                yield at
            at -= interval.total_seconds()
        bound = end


def _time(unix_time: float) -> datetime:
    return datetime.fromtimestamp(unix_time, UTC)


def main() -> int:
    """Stores the history. A second run stores what an interrupted one has not."""
    parser = argparse.ArgumentParser()
    add_flags(parser, *database_command.FLAGS)
    parser.add_argument("--fleet", type=Path, required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--started-at", type=float, required=True)
    args = parser.parse_args()

    async def store(database: Database, settings: Settings) -> int:
        await store_history(database, settings, args.fleet, args.instances, args.started_at)
        return 0

    return database_command.run(args, store)


if __name__ == "__main__":
    sys.exit(main())
