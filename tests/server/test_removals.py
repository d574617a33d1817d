"""Instances that are gone: purged, or erased and told of by the feed up to its horizon."""

import asyncio
import time
from collections.abc import Callable

import psycopg2

from tests.conftest import admin_cursor
from tests.installs import Install
from tests.server.test_actions import act
from tests.server.test_protocol import items
from tests.server_process import ServerProcess
from tests.subscriber import subscribed

LIMIT_S = 20


def test_a_pending_instance_that_never_proves_its_key_is_purged_and_others_are_not(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(SHM_ACTIVATION="manual", SHM_PENDING_AGE="1d")
    stranger, young, waiting = (Install(server.url) for _ in range(3))
    for install in (stranger, young, waiting):
        assert install.register().status_code == 201
    assert waiting.activate().json() == {"status": "pending"}
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE instances SET registered_at = now() - interval '25 hours' WHERE instance_id IN (%s, %s)",
            (stranger.instance_id, waiting.instance_id),
        )
    cursor_before = int(server.get("instances").headers["X-Feed-Cursor"])
    server.terminate()
    server.start()  # it purges at its start, and once a minute
    deadline = time.monotonic() + LIMIT_S
    while stranger.instance_id in items(server):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)
    assert items(server).keys() == {young.instance_id, waiting.instance_id}
    assert int(server.get("instances").headers["X-Feed-Cursor"]) == cursor_before + 1


async def test_the_feed_tells_of_an_erased_instance_to_whoever_listens_and_to_whoever_comes_back(
    server: ServerProcess,
) -> None:
    install = Install(server.url, app_name="Ledger").arrived()
    listed = server.get("instances")
    since = int(listed.headers["X-Feed-Cursor"])
    assert act(install, "erase").status_code == 200
    for query in (f"?since={since}", f"?since={since}&app=ledger"):
        async with subscribed(server, query) as subscriber:
            told = await subscriber.until("removed")
            assert (told["instance_id"], told["cursor"]) == (install.instance_id, since + 1)


async def test_a_cursor_from_before_the_feeds_memory_of_removals_leads_to_a_resync(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    install = Install(server.url).arrived()
    since = int(server.get("instances").headers["X-Feed-Cursor"])
    assert act(install, "erase").status_code == 200
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE removals SET removed_at = now() - interval '25 hours'")
    server.terminate()
    server.start()
    connection = psycopg2.connect(database)
    connection.autocommit = True
    deadline = time.monotonic() + LIMIT_S
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT horizon, (SELECT count(*) FROM removals) FROM feed_head")
            if cursor.fetchone() == (since + 1, 0):
                break
            assert time.monotonic() < deadline, server.log
            await asyncio.sleep(0.05)
    connection.close()
    async with subscribed(server, f"?since={since}") as subscriber:
        assert (await subscriber.until("resync"))["reason"].endswith("list again.")
    async with subscribed(server, f"?since={since + 1}") as subscriber:
        await asyncio.to_thread(Install(server.url).arrived)
        await subscriber.message()
        assert (await subscriber.message())["type"] == "instance"
