"""Removed instances: purged, erased or deleted, and the removals that the feed sends."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import psycopg2
import pytest

from tests.support import plain_http
from tests.support.background_jobs import wait_until_rolled_up
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.responses import instances_by_id
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act
from tests.support.subscriber import subscribe

pytestmark = pytest.mark.cluster

TIMEOUT_S = 60


def test_only_pending_instances_without_proof_are_purged(serve: Callable[..., ServerProcess], database: str) -> None:
    """A pending instance that never confirms its key is purged; others are not."""
    server = serve(SHM_ACTIVATION="manual", SHM_PENDING_AGE="1d")
    expired, recent, unapproved = (Install(server.url) for _ in range(3))
    for install in (expired, recent, unapproved):
        assert install.register().status_code == 201
    assert unapproved.activate().json()["status"] == "pending"
    server.terminate()  # so that it does not purge yet
    with admin_cursor(database) as cursor:
        cursor.execute(
            "UPDATE instances SET registered_at = now() - interval '25 hours' WHERE instance_id IN (%s, %s)",
            (expired.instance_id, unapproved.instance_id),
        )
        cursor.execute("SELECT cursor FROM feed_head")
        (cursor_before,) = cursor.fetchone() or (0,)
    server.start()  # the purge runs at its start, and once a minute
    deadline = time.monotonic() + TIMEOUT_S
    while expired.instance_id in instances_by_id(server):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)
    assert instances_by_id(server).keys() == {recent.instance_id, unapproved.instance_id}
    assert int(server.get("instances").headers["X-Feed-Cursor"]) == cursor_before + 1


async def test_the_feed_reports_an_erasure_also_after_a_reconnect(
    server: ServerProcess,
) -> None:
    """A subscriber that connects after the erasure receives the removal too."""
    install = Install(server.url, app_name="Ledger").enroll()
    response = server.get("instances")
    since = int(response.headers["X-Feed-Cursor"])
    assert act(install, "erase").status_code == 200
    for query in (f"?since={since}", f"?since={since}&app=ledger"):
        async with subscribe(server, query) as subscriber:
            message = await subscriber.until("removed")
            assert (message["instance_id"], message["cursor"]) == (install.instance_id, since + 1)


async def test_a_cursor_before_the_stored_removals_gets_a_resync(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    install = Install(server.url).enroll()
    since = int(server.get("instances").headers["X-Feed-Cursor"])
    assert act(install, "erase").status_code == 200
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE removals SET removed_at = now() - interval '25 hours'")
    server.terminate()
    server.start()
    connection = psycopg2.connect(database)
    connection.autocommit = True
    deadline = time.monotonic() + TIMEOUT_S
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT horizon, (SELECT count(*) FROM removals) FROM feed_head")
            if cursor.fetchone() == (since + 1, 0):
                break
            assert time.monotonic() < deadline, server.log
            await asyncio.sleep(0.05)
    connection.close()
    async with subscribe(server, f"?since={since}") as subscriber:
        assert (await subscriber.until("resync"))["reason"].endswith("list again.")
    async with subscribe(server, f"?since={since + 1}") as subscriber:
        await asyncio.to_thread(Install(server.url).enroll)
        await subscriber.message()
        assert (await subscriber.message())["type"] == "instance"


COUNT_ROWS = """
    SELECT
        (SELECT count(*) FROM instances WHERE instance_id = %(id)s)
        + (SELECT count(*) FROM snapshots WHERE instance_id = %(id)s)
        + (SELECT count(*) FROM absences WHERE instance_id = %(id)s)
        + (SELECT count(*) FROM tallies WHERE key = 'n' AND (total <> 0 OR instances <> 0))
        + (SELECT count(*) FROM (
            SELECT at FROM series_hours WHERE key = 'n' GROUP BY at HAVING sum(total) <> 0 OR sum(instances) <> 0
        ) hours)
"""


def delete(server: ServerProcess, install: Install, token: str | None = None) -> httpx.Response:
    """`DELETE instances/{id}`, with the admin's token by default."""
    headers = server.headers if token is None else {"Authorization": f"Bearer {token}"}
    return plain_http.delete(f"{server.url}/api/v1/admin/instances/{install.instance_id}", headers=headers)


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_deleted_instance_leaves_no_data(server: ServerProcess, database: str, revoked: bool) -> None:
    """No table, KPI or chart contains its data, and the feed sends the removal."""
    install = Install(server.url, app_name="Ledger").enroll({"n": 7}, ago=timedelta(hours=5))
    assert install.snapshot({"n": 8}).status_code == 202
    instance_url = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
    with admin_cursor(database) as cursor:
        cursor.execute("INSERT INTO absences VALUES (%s, now(), now())", (install.instance_id,))
        await asyncio.to_thread(wait_until_rolled_up, database)
        cursor.execute(COUNT_ROWS, {"id": install.instance_id})
        assert (cursor.fetchone() or (0,))[0] > 5  # the instance, two snapshots, an absence, the tally, several hours
    if revoked:
        (await asyncio.to_thread(httpx.post, f"{instance_url}/revoke", headers=server.headers)).raise_for_status()
    since = int(server.get("instances").headers["X-Feed-Cursor"])
    async with subscribe(server, f"?since={since}") as subscriber:
        response = await asyncio.to_thread(delete, server, install)
        assert (response.status_code, response.content) == (204, b"")
        message = await subscriber.until("removed")
        assert (message["instance_id"], message["cursor"]) == (install.instance_id, since + 1)
    assert instances_by_id(server) == {}
    assert server.get("applications/ledger/kpis").json()["kpis"] == []
    chart = server.get("metrics/ledger?period=24h&keys=n").json()
    assert not any(any(values) for values in chart["metrics"].values())
    for url in (instance_url, f"{instance_url}/snapshots"):
        assert (await asyncio.to_thread(httpx.get, url, headers=server.headers)).status_code == 404
    with admin_cursor(database) as cursor:
        cursor.execute(COUNT_ROWS, {"id": install.instance_id})
        assert cursor.fetchone() == (0,)
    assert install.snapshot({"n": 9}).status_code == 403


def test_only_an_admin_can_delete_an_existing_instance(server: ServerProcess) -> None:
    install, other = Install(server.url).enroll({"n": 1}), Install(server.url).enroll({"n": 2})
    created = plain_http.post(
        f"{server.url}/api/v1/admin/tokens", headers=server.headers, json={"name": "reader", "role": "viewer"}
    )
    assert delete(server, install, created.json()["token"]).json()["code"] == "role_too_small"
    assert install.instance_id in instances_by_id(server)
    assert delete(server, install).status_code == 204
    again = delete(server, install)
    assert (again.status_code, again.json()["code"]) == (404, "no_such_instance")
    assert [*instances_by_id(server)] == [other.instance_id]
    assert install.register().status_code == 201
