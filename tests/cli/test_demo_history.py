"""The simulated past of a demo: a year, true to its snapshots, and stored once."""

import time
from pathlib import Path

from shm.analytics.consistency import find_differences
from shm.cli.demo.applications import APPLICATIONS, DAY_S, make_former_installs, make_installs
from shm.cli.demo.history import store_history
from shm.core.settings import Settings
from shm.db.database import Database
from shm_sdk.identity import load
from tests.support.databases import admin_cursor

COUNT = 24


async def test_a_demo_has_a_year_of_true_history(database: str, tmp_path: Path) -> None:
    started_at = time.time() - 1
    async with Database.connect(Settings(), database, size=1) as pool:
        stored = await store_history(pool, Settings(), tmp_path, COUNT, started_at)
        assert (stored.instances, stored.skipped) == (COUNT + COUNT // 8, {})
        again = await store_history(pool, Settings(), tmp_path, COUNT, started_at)
        assert (again.snapshots, again.known_snapshots) == (0, stored.snapshots)
        assert (await find_differences(pool, lambda *_: None)).counts == {}
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT now() - min(snapshot_at) > '350 days', max(snapshot_at) <= now() FROM snapshots")
        assert cursor.fetchone() == (True, True)
        cursor.execute("SELECT count(DISTINCT app_version) > 3, count(DISTINCT app_slug) FROM versions_seen")
        assert cursor.fetchone() == (True, len(APPLICATIONS))
        cursor.execute("SELECT instance_id::text FROM instances")
        known = {row[0] for row in cursor}
    for application, persona in make_installs(COUNT, started_at):
        identity = load(persona.directory(tmp_path), application.name)
        assert identity is not None
        assert identity.instance_id in known


def test_an_install_only_updates_to_newer_versions() -> None:
    started_at = 1.8e9
    for application, persona in (*make_installs(160, started_at), *make_former_installs(160, started_at)):
        releases = [version for version, _ in application.releases]
        days = range(int((started_at - persona.installed_at) // DAY_S) + 1)
        ranks = [
            releases.index(application.version(persona, persona.installed_at + day * DAY_S, started_at)) for day in days
        ]
        assert ranks == sorted(ranks, reverse=True)
        assert persona.ended_at is None or persona.installed_at <= persona.ended_at <= started_at
