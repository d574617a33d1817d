"""The cache of public keys: reads are batched, and every caller gets its result or an error."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator

import pytest
from psycopg2.extensions import make_dsn

from shm.core.errors import DatabaseUnavailable, Overloaded
from shm.core.settings import Settings
from shm.core.shared_budget import PARTS, SharedBudget
from shm.core.tasks import run_in_background
from shm.db.database import Database
from shm.ingest import key_cache
from shm.ingest.key_cache import REQUEST_BYTES, PublicKeyCache
from tests.support.databases import admin_cursor, create_database, superuser_cursor

TIMEOUT_S = 60


def insert_instances(database: str, count: int) -> dict[str, bytes]:
    """Inserts `count` instances; returns their keys by ID."""
    keys_by_id = {str(uuid.uuid4()): secrets.token_bytes(32) for _ in range(count)}
    with admin_cursor(database) as cursor:
        for instance_id, key in keys_by_id.items():
            cursor.execute(
                "INSERT INTO instances (instance_id, public_key, app_slug, app_name, app_version, environment, "
                "deployment_mode, os_arch, cursor) VALUES (%s, %s, '', '', '', '', '', '', 0)",
                (instance_id, key),
            )
    return keys_by_id


@pytest.fixture
async def cache(database: str) -> AsyncIterator[PublicKeyCache]:
    """A running cache of the test's database."""
    settings = Settings.load({"SHM_QUEUE": "500"})
    async with Database.connect(settings, database, 1) as pool:
        keys = PublicKeyCache(pool, settings)
        async with run_in_background(keys.run()):
            yield keys


async def test_each_caller_gets_its_key_and_none_for_an_unknown_instance(cache: PublicKeyCache, database: str) -> None:
    keys_by_id = insert_instances(database, 200)
    unknown = str(uuid.uuid4())
    requests = [*keys_by_id, unknown, *keys_by_id]
    keys = await asyncio.wait_for(asyncio.gather(*(cache.get(request) for request in requests)), TIMEOUT_S)
    assert keys == [*keys_by_id.values(), None, *keys_by_id.values()]


async def test_a_refresh_reads_the_key_from_the_database(cache: PublicKeyCache, database: str) -> None:
    ((instance_id, first),) = insert_instances(database, 1).items()
    assert await cache.get(instance_id) == first
    second = secrets.token_bytes(32)
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE instances SET public_key = %s", (second,))
    assert await cache.get(instance_id) == first
    assert await cache.get(instance_id, refresh=True) == second
    assert await cache.get(instance_id) == second


async def test_the_number_of_cached_keys_is_limited(
    cache: PublicKeyCache, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "MAX_ENTRIES", 10)
    for instance_id in insert_instances(database, 30):
        assert await cache.get(instance_id) is not None
    assert len(cache._cached) == 10


async def test_a_request_beyond_the_queues_limit_is_refused(cache: PublicKeyCache) -> None:
    requests = [asyncio.ensure_future(cache.get(str(uuid.uuid4()))) for _ in range(501)]
    keys = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), TIMEOUT_S)
    assert keys[:500] == [None] * 500
    assert isinstance(keys[500], Overloaded)


async def test_requests_fail_while_the_database_is_unavailable(postgres: str) -> None:
    settings = Settings.load({"SHM_DB_PATIENCE": "1s"})
    name = f"dropped_{secrets.token_hex(4)}"
    create_database(postgres, name)
    async with Database.connect(settings, make_dsn(postgres, dbname=name), 1) as pool:
        cache = PublicKeyCache(pool, settings)
        async with run_in_background(cache.run()):
            with superuser_cursor(postgres) as cursor:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            requests = [asyncio.ensure_future(cache.get(str(uuid.uuid4()))) for _ in range(5)]
            requests.append(asyncio.ensure_future(cache.get_deferred(str(uuid.uuid4()), 1, b"")))
            keys = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), TIMEOUT_S)
            assert [type(request) for request in keys] == [DatabaseUnavailable] * 6


async def test_an_address_leaves_room_for_the_deferred_reads_of_others(cache: PublicKeyCache, database: str) -> None:
    (known,) = keys = insert_instances(database, 1)
    cache._deferred_budget = SharedBudget(20 * (REQUEST_BYTES + 1))
    junk = [asyncio.ensure_future(cache.get_deferred(str(uuid.uuid4()), 1, b"stranger")) for _ in range(40)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(cache.get_deferred(known, 1, b"honest"), TIMEOUT_S) == keys[known]
    assert await asyncio.gather(*junk) == [None] * 40


async def test_deferred_reads_take_one_statement_and_have_a_limit(cache: PublicKeyCache, database: str) -> None:
    """A normal read of one of the keys has its result too, and bytes that no longer wait make room for others."""
    keys_by_id = insert_instances(database, 20)
    unknown = str(uuid.uuid4())
    for _ in range(2):
        cache._deferred_budget = SharedBudget((21 + PARTS - 1) * (REQUEST_BYTES + 1))
        requests = [*keys_by_id, unknown, unknown]
        deferred = [cache.get_deferred(request, 1, bytes([number])) for number, request in enumerate(requests)]
        normal = next(iter(keys_by_id))
        *keys, first, beyond, read = await asyncio.wait_for(asyncio.gather(*deferred, cache.get(normal)), TIMEOUT_S)
        assert keys == [*keys_by_id.values()]
        assert (first, beyond, read) == (None, None, keys_by_id[normal])
        cache._cached.clear()
