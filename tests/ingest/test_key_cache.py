"""Public keys are read together, and no answer is kept from whoever asked."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator

import pytest
from psycopg2.extensions import make_dsn

from shm.core.errors import DatabaseUnavailable, Overloaded
from shm.core.settings import Settings
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.ingest import key_cache
from shm.ingest.key_cache import PublicKeyCache
from tests.support.databases import admin_cursor

LIMIT_S = 20


def seeded(database: str, count: int) -> dict[str, bytes]:
    """That many instances, each with a key."""
    known = {str(uuid.uuid4()): secrets.token_bytes(32) for _ in range(count)}
    with admin_cursor(database) as cursor:
        for instance_id, key in known.items():
            cursor.execute(
                "INSERT INTO instances (instance_id, public_key, app_slug, app_name, app_version, environment, "
                "deployment_mode, os_arch, cursor) VALUES (%s, %s, '', '', '', '', '', '', 0)",
                (instance_id, key),
            )
    return known


@pytest.fixture
async def asking(database: str) -> AsyncIterator[PublicKeyCache]:
    """Keys of the test's database."""
    settings = Settings.load({"SHM_QUEUE": "500"})
    async with Database.connect(settings, database, 1) as opened:
        found = PublicKeyCache(opened, settings)
        async with run_in_background(found.run()):
            yield found


async def test_each_gets_its_own_key_and_a_stranger_none(asking: PublicKeyCache, database: str) -> None:
    known = seeded(database, 200)
    stranger = str(uuid.uuid4())
    asked = [*known, stranger, *known]
    found = await asyncio.wait_for(asyncio.gather(*(asking.get(each) for each in asked)), LIMIT_S)
    assert found == [*known.values(), None, *known.values()]


async def test_the_newest_key_is_the_databases(asking: PublicKeyCache, database: str) -> None:
    ((instance_id, first),) = seeded(database, 1).items()
    assert await asking.get(instance_id) == first
    second = secrets.token_bytes(32)
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE instances SET public_key = %s", (second,))
    assert await asking.get(instance_id) == first
    assert await asking.get(instance_id, refresh=True) == second
    assert await asking.get(instance_id) == second


async def test_no_more_are_remembered_than_may_be(
    asking: PublicKeyCache, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "MAX_ENTRIES", 10)
    for instance_id in seeded(database, 30):
        assert await asking.get(instance_id) is not None
    assert len(asking._cached) == 10


async def test_past_the_queue_the_next_is_told_to_come_back(asking: PublicKeyCache) -> None:
    asked = [asyncio.ensure_future(asking.get(str(uuid.uuid4()))) for _ in range(501)]
    found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), LIMIT_S)
    assert found[:500] == [None] * 500
    assert isinstance(found[500], Overloaded)


async def test_whoever_asks_while_the_database_is_away_is_told(postgres: str) -> None:
    settings = Settings.load({"SHM_DB_PATIENCE": "1s"})
    name = f"gone_{secrets.token_hex(4)}"
    with admin_cursor(postgres) as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    async with Database.connect(settings, make_dsn(postgres, dbname=name), 1) as opened:
        asking = PublicKeyCache(opened, settings)
        async with run_in_background(asking.run()):
            with admin_cursor(postgres) as cursor:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            asked = [asyncio.ensure_future(asking.get(str(uuid.uuid4()))) for _ in range(5)]
            found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), LIMIT_S)
            assert [type(each) for each in found] == [DatabaseUnavailable] * 5
