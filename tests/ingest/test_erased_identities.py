"""Replays: what was signed before an erasure is refused afterwards, and each signed action is carried out once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.ingest import erasure
from shm.ingest.erasure import Eraser
from shm.ingest.key_cache import PublicKeyCache
from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute
from tests.support.installs import Install
from tests.support.responses import instances_by_id, problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act, action, backlog, rotate
from tests.support.time_travel import shift_times

pytestmark = pytest.mark.cluster

# A trigger that records each change of `erasing_since`.
RECORD_TIMES = """
    CREATE FUNCTION record_time() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO times VALUES (new.erasing_since);
        RETURN new;
    END $$;
    CREATE TRIGGER times BEFORE UPDATE OF erasing_since ON instances FOR EACH ROW EXECUTE FUNCTION record_time();
"""
ACTIVATE = b'{"action":"activate"}'


@pytest.fixture
def background(database: str) -> Iterator[BackgroundJobs]:
    """Keeps servers from running their jobs, so it must be requested before them."""
    with run_background_jobs(database) as jobs:
        yield jobs


def delete(server: ServerProcess, install: Install) -> None:
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}"
    plain_http.delete(url, headers=server.headers).raise_for_status()


def value(database: str, sql: str, *parameters: object) -> Any:
    with admin_cursor(database) as cursor:
        cursor.execute(sql, parameters)
        return (cursor.fetchone() or (None,))[0]


@pytest.mark.parametrize("is_by_admin", [False, True])
def test_requests_signed_before_an_erasure_bring_nothing_back(shared_server: ServerProcess, is_by_admin: bool) -> None:
    install = Install(shared_server.url).enroll({"n": 1})
    sent = install.snapshot_body({"n": 1}, datetime.now(UTC) - timedelta(minutes=1))
    registered_at = datetime.now(UTC)
    if is_by_admin:
        delete(shared_server, install)
    else:
        assert act(install, "erase").status_code == 200
    assert problem(install.register_signed(registered_at)) == (403, "signed_before_erasure")
    assert install.instance_id not in instances_by_id(shared_server)
    if not is_by_admin:
        assert problem(install.register()) == (403, "signed_before_erasure")
        assert install.instance_id not in instances_by_id(shared_server)
        return
    assert install.register().status_code == 201
    assert problem(install.activate()) == (403, "signed_before_erasure")
    assert problem(install.post("/v1/snapshot", sent, install.signed(sent))) == (400, "signed_before_erasure")
    left = shared_server.get(f"instances/{install.instance_id}").json()
    assert (left["status"], left["metrics"], left["last_seen_at"]) == ("pending", {}, None)


def test_a_withheld_request_with_a_later_time_is_accepted_after_a_deletion(shared_server: ServerProcess) -> None:
    """Its time is the only sign of when it was signed. SHM_MAX_CLOCK_SKEW limits how much later it may be."""
    install = Install(shared_server.url).enroll({"n": 1})
    withheld = install.snapshot_body({"n": 1}, datetime.now(UTC) + timedelta(minutes=3))
    too_late = install.snapshot_body({"n": 1}, datetime.now(UTC) + timedelta(minutes=6))
    delete(shared_server, install)
    assert install.register().status_code == 201
    assert problem(install.post("/v1/snapshot", too_late, install.signed(too_late))) == (400, "timestamp_ahead")
    assert install.post("/v1/snapshot", withheld, install.signed(withheld)).status_code == 202


def test_each_old_member_of_a_backlog_is_refused_after_an_erasure(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 1})
    old = {"timestamp": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(), "metrics": {"n": 2}}
    assert act(install, "erase").status_code == 200
    assert install.register_signed().status_code == 201
    assert install.snapshot({"n": 3}).status_code == 202
    new = {"timestamp": datetime.now(UTC).isoformat(), "metrics": {"n": 4}}
    verdicts = backlog(install, [old, new, old]).json()["snapshots"]
    assert [each.get("code", each["status"]) for each in verdicts] == [
        "signed_before_erasure",
        "stored",
        "signed_before_erasure",
    ]


def test_an_erased_install_returns_with_a_newer_registration(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 1})
    erase = action(install, "erase")
    assert install.post("/v1/erase", erase, install.signed(erase)).status_code == 200
    assert install.register_signed().status_code == 201
    assert install.snapshot({"n": 2}).status_code == 202
    assert install.activate().status_code == 403  # the constant body proves nothing about when it was signed
    assert problem(install.post("/v1/erase", erase, install.signed(erase))) == (403, "unknown_instance")
    assert shared_server.get(f"instances/{install.instance_id}").json()["metrics"] == {"n": 2}
    assert act(install, "erase").json()["snapshots"] == 1


def test_a_deleted_id_stays_with_its_key_while_its_hash_is_kept(
    background: BackgroundJobs, server: ServerProcess, database: str
) -> None:
    install, thief = Install(server.url).enroll({"n": 1}), Install(server.url)
    thief.instance_id = install.instance_id
    delete(server, install)
    assert problem(thief.register()) == (409, "key_conflict")
    background.run("delete old hashes of erased instances")
    assert problem(thief.register()) == (409, "key_conflict")
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE erased_identities SET erased_at = erased_at - interval '31 days'")
    background.run("delete old hashes of erased instances")
    assert thief.register().status_code == 201
    assert thief.activate().status_code == 200


def test_an_unconfirmed_id_is_taken_over_by_its_owner(shared_server: ServerProcess) -> None:
    owner, thief = Install(shared_server.url), Install(shared_server.url, app_name="Kiosk")
    thief.instance_id = owner.instance_id
    assert thief.register().status_code == 201
    assert owner.register().status_code == 201
    assert problem(thief.activate()) == (403, "bad_signature")
    assert owner.activate().status_code == 200
    assert problem(thief.register()) == (409, "key_conflict")
    assert shared_server.get(f"instances/{owner.instance_id}").json()["app_slug"] == "ledger"


@pytest.mark.parametrize("status", ["pending", "active"])
def test_a_confirmed_or_approved_id_is_not_taken_over(serve: Callable[..., ServerProcess], status: str) -> None:
    server = serve(SHM_ACTIVATION="manual")
    owner, thief = Install(server.url), Install(server.url)
    thief.instance_id = owner.instance_id
    assert owner.register().status_code == 201
    if status == "pending":
        assert owner.activate().json()["status"] == "pending"
    else:
        url = f"{server.url}/api/v1/admin/instances/{owner.instance_id}/approve"
        plain_http.post(url, headers=server.headers).raise_for_status()
    assert problem(thief.register()) == (409, "key_conflict")


def test_only_a_timestamp_makes_an_activation_a_sign_of_life(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 1})
    shift_times(database, timedelta(days=1))
    seen = instances_by_id(server)[install.instance_id]["last_seen_at"]
    assert install.activate().status_code == 200
    assert install.register(app_version="2.0").status_code == 200
    assert install.activate().status_code == 200
    shown = instances_by_id(server)[install.instance_id]
    assert (shown["last_seen_at"], shown["app_version"]) == (seen, "2.0")
    now = datetime.now(UTC)
    assert install.activate(now).status_code == 200
    assert instances_by_id(server)[install.instance_id]["last_seen_at"] > seen
    assert problem(install.activate(now)) == (403, "replayed")
    assert problem(install.activate(now - timedelta(minutes=6))) == (400, "timestamp_too_old")


def test_a_replayed_activation_of_a_lost_install_is_no_return(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 1})
    shift_times(database, timedelta(days=40))
    assert install.activate().status_code == 200
    assert value(database, "SELECT count(*) FROM absences") == 0
    assert install.snapshot({"n": 2}).status_code == 202
    assert value(database, "SELECT count(*) FROM absences") == 1


def test_each_signed_action_is_carried_out_once(
    background: BackgroundJobs, serve: Callable[..., ServerProcess], database: str
) -> None:
    servers = [serve(), serve()]
    install = Install(servers[0].url).enroll({"n": 1})
    disclose = action(install, "disclose")
    assert install.post("/v1/disclose", disclose, install.signed(disclose)).status_code == 200
    install.url = servers[1].url
    assert problem(install.post("/v1/disclose", disclose, install.signed(disclose))) == (403, "replayed")
    assert act(install, "disclose").status_code == 200
    background.run("delete old hashes of actions")
    assert value(database, "SELECT count(*) FROM signed_actions") == 2
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE signed_actions SET signed_at = signed_at - interval '66 minutes'")
    background.run("delete old hashes of actions")
    assert value(database, "SELECT count(*) FROM signed_actions") == 0


def test_a_repeated_rotation_changes_nothing(server: ServerProcess, database: str) -> None:
    install, new = Install(server.url).enroll({"n": 1}), Install(server.url)
    assert rotate(install, new.key).status_code == 200
    shift_times(database, timedelta(days=1))
    seen = instances_by_id(server)[install.instance_id]["last_seen_at"]
    assert rotate(install, new.key).status_code == 200
    assert instances_by_id(server)[install.instance_id]["last_seen_at"] == seen


def test_an_interrupted_erasure_is_completed(background: BackgroundJobs, server: ServerProcess, database: str) -> None:
    install, other = Install(server.url).enroll({"n": 1}), Install(server.url).enroll({"n": 5})
    install.snapshot({"n": 2})
    background.run("roll up")
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE instances SET erasing_since = now() WHERE instance_id = %s", [install.instance_id])
    for refused in (install.register(), install.activate(), install.snapshot({"n": 3})):
        assert problem(refused) == (403, "unknown_instance")
    background.run("complete interrupted deletions")
    assert install.instance_id in instances_by_id(server)  # the process that began it may be at it
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE instances SET erasing_since = erasing_since - interval '61 s'")
    background.run("complete interrupted deletions")
    assert instances_by_id(server).keys() == {other.instance_id}
    assert background.differences() == {}
    assert value(database, "SELECT count(*) FROM snapshots") == 1


def test_a_repeated_erasure_is_not_completed_by_the_background_job(
    background: BackgroundJobs, server: ServerProcess, database: str
) -> None:
    """The job would delete the instance first, and its install would be told that nobody knows it."""
    install = Install(server.url).enroll({"n": 1})
    background.run("roll up")
    execute(database, "UPDATE instances SET erasing_since = now() - interval '61 s'")
    with admin_cursor(database) as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.ROLLUP])  # no page can be deleted
        erasing = threads.submit(act, install, "erase")
        wait_for(
            lambda: value(database, "SELECT erasing_since > now() - interval '60 s' FROM instances"), "the erasure"
        )
        background.run("complete interrupted deletions")  # or it would wait for the lock
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.ROLLUP])
        assert erasing.result().json()["snapshots"] == 1


def test_a_long_erasure_is_kept_from_the_background_job(
    background: BackgroundJobs, server: ServerProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "HEARTBEAT_INTERVAL_S", 0.0)
    monkeypatch.setattr(erasure, "MAX_LEAVES", 1)  # of a page, which has one snapshot then
    install = Install(server.url)
    install.register()
    install.activate()
    for number in range(3):
        assert install.snapshot({"n": number}).status_code == 202
    background.run("roll up")
    execute(database, "CREATE TABLE times AS SELECT erasing_since FROM instances LIMIT 0")
    execute(database, RECORD_TIMES)
    settings = Settings()
    eraser = Eraser(background.database, PublicKeyCache(background.database, settings), settings)
    receipt = background.runner.run(
        eraser.erase(install.instance_id, bytes.fromhex(install.public_key), datetime.now(UTC))
    )
    assert receipt.snapshots == 3
    assert value(database, "SELECT count(*) FROM times") >= 4  # at its beginning, and before each page


def test_an_interrupted_revocation_is_completed(
    background: BackgroundJobs, server: ServerProcess, database: str
) -> None:
    install = Install(server.url).enroll({"n": 1}, ago=timedelta(hours=3))
    background.run("roll up")
    background.runner.run(
        background.database.execute("instances.set_status", instance_id=install.instance_id, status="revoked")
    )
    assert background.differences() == {}
    background.run("complete interrupted deletions")
    assert background.differences() == {}
    assert value(database, "SELECT revoked_at IS NOT NULL FROM instances")
    assert value(database, "SELECT sum(instances) FROM series_hours WHERE key = 'n' AND at > now()") == -1


def test_nobody_waits_for_the_erasure_of_a_long_history(server: ServerProcess, database: str) -> None:
    install, other = Install(server.url).enroll({"n": 1}), Install(server.url).enroll({"n": 5})
    with admin_cursor(database) as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.ROLLUP])  # a page that takes its time
        erasing = threads.submit(act, install, "erase")
        wait_for(
            lambda: value(database, "SELECT count(*) FROM instances WHERE erasing_since IS NOT NULL"), "an erasure"
        )
        assert other.snapshot({"n": 6}).status_code == 202
        assert Install(server.url).enroll({"n": 7}).instance_id in instances_by_id(server)
        assert not erasing.done()
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.ROLLUP])
        assert erasing.result().json()["snapshots"] == 1


def test_an_erasure_leaves_no_rows_of_zero(background: BackgroundJobs, server: ServerProcess, database: str) -> None:
    install, other = Install(server.url), Install(server.url)
    for days in (5, 4, 2, 0):
        at = datetime.now(UTC) - timedelta(days=days, minutes=1)
        for each in (install, other):
            each.register()
            each.activate()
            assert each.snapshot({"n": days, f"key_{days}_{each.instance_id}": 1}, at).status_code == 202
    background.run("roll up", "close a day")
    counts = "SELECT (SELECT count(*) FROM series_hours WHERE {0}) + (SELECT count(*) FROM series_days WHERE {0})"
    own = f"position('{install.instance_id}' IN key) > 0"
    kept = value(database, counts.format(f"NOT {own}"))
    assert value(database, counts.format(own)) > 10
    assert act(install, "erase").json()["snapshots"] == 4
    assert value(database, counts.format("TRUE")) == kept
    assert value(database, counts.format("total = 0 AND instances = 0")) == 0
    assert background.differences() == {}
