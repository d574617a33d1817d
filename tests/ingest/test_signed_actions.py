"""Backlog, rotation, erasure and disclosure, over real sockets."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import psutil
import psycopg2
import psycopg2.extensions
import psycopg2.sql
import pytest
from nacl.signing import SigningKey

from shm.db.advisory_locks import Lock
from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.responses import instances_by_id, problem
from tests.support.server_process import ServerProcess
from tests.support.shared_servers import BATCH, WAITING
from tests.support.signed_actions import act, action, ago, backlog, rotate

pytestmark = pytest.mark.cluster

TIMEOUT_S = 60
CONFIRM_KEYS = 'EXECUTE "enrolment.confirm_batch"'  # in the SQL that confirms keys, the first statement of a rotation
UNREAD = 20  # concurrent disclosures
MAX_UNREAD_BYTES = 10 * 1024**2  # for each: a page of snapshots of 60 KiB as rows, encoded, and in buffers
LARGE_SNAPSHOTS = """
    INSERT INTO snapshots (instance_id, snapshot_at, metrics, app_slug, app_version, cursor)
    SELECT
        %s, now() - place * interval '1 minute', jsonb_build_object('a', repeat(md5(place::text), 1900)), 'ledger', '1',
        1
    FROM generate_series(1, 300) place
"""


def _render_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST request."""
    all_headers = {"Host": "shm.test", **headers, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def wait_for_writers(cursor: psycopg2.extensions.cursor, number: int, part: str) -> None:
    """Waits until `number` statements that contain `part` wait for the writers' lock."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        cursor.execute(WAITING, [part])
        if cursor.fetchone() == (number,):
            return
        assert time.monotonic() < deadline, f"fewer than {number} statements wait for the writers' lock"
        time.sleep(0.01)


def count_rows(database: str, table: str, install: Install) -> int:
    """The number of rows of an instance."""
    with admin_cursor(database) as cursor:
        statement = psycopg2.sql.SQL("SELECT count(*) FROM {} WHERE instance_id = %s")
        cursor.execute(statement.format(psycopg2.sql.Identifier(table)), (install.instance_id,))
        (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def test_a_backlog_is_stored_with_a_verdict_for_each_member(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 0})
    first, second = ago(120), ago(60)
    response = backlog(
        install,
        [
            {"timestamp": first, "metrics": {"n": 1}, "sequence": 1},
            {"timestamp": ago(60 * 24 * 40), "metrics": {"n": 2}},
            {"timestamp": second, "metrics": {"n": "\0"}},
            "no object",
            {"timestamp": second, "metrics": {"n": 3}, "app_version": "1.5.0"},
            {"timestamp": first, "metrics": {"n": 4}},
        ],
    )
    assert response.status_code == 202
    verdicts = [(member["status"], member.get("code")) for member in response.json()["snapshots"]]
    assert verdicts == [
        ("stored", None),
        ("refused", "timestamp_too_old"),
        ("refused", "nul_character"),
        ("refused", "bad_field"),
        ("stored", None),
        ("repeated", None),
    ]
    assert count_rows(database, "snapshots", install) == 3
    assert instances_by_id(server)[install.instance_id]["metrics"] == {"n": 0}


def test_a_backlog_of_a_hundred_is_stored_and_a_larger_one_refused(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 0})
    members = [
        {"timestamp": ago(minutes), "metrics": {"n": minutes, "pad": ["x" * 1000] * 9}} for minutes in range(101)
    ]
    assert problem(backlog(install, members)) == (400, "too_many_snapshots")
    response = backlog(install, members[:100])
    assert len(response.content) < len(json.dumps(members))
    assert [member["status"] for member in response.json()["snapshots"]] == ["stored"] * 100
    repeated = backlog(install, members[:100])
    assert [member["status"] for member in repeated.json()["snapshots"]] == ["repeated"] * 100


def test_a_backlog_over_a_mebibyte_is_refused(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 0})
    assert problem(backlog(install, [{"timestamp": ago(1), "metrics": {"n": "x" * 1_100_000}}])) == (
        413,
        "body_too_large",
    )


def test_a_backlog_for_another_instance_is_refused(shared_server: ServerProcess) -> None:
    attacker, victim = Install(shared_server.url).enroll(), Install(shared_server.url).enroll()
    body = json.dumps({"instance_id": victim.instance_id, "snapshots": []}).encode()
    assert problem(attacker.post("/v1/snapshots", body, attacker.signed(body))) == (403, "instance_mismatch")
    forged = attacker.signed(body) | {"X-Instance-ID": victim.instance_id}
    assert problem(attacker.post("/v1/snapshots", body, forged)) == (403, "bad_signature")


def test_a_rotated_key_is_valid_in_every_server_and_the_old_one_in_none(
    server: ServerProcess, serve: Callable[..., ServerProcess]
) -> None:
    other = serve()
    install = Install(server.url).enroll({"n": 0})
    at_other_server = Install(other.url, instance_id=install.instance_id, key=install.key)
    assert at_other_server.snapshot({"n": 1}).status_code == 202  # so that this server caches the old key too
    new = SigningKey.generate()
    assert rotate(install, new).status_code == 200
    assert problem(install.snapshot({"n": 2})) == (403, "bad_signature")
    assert problem(at_other_server.snapshot({"n": 2}))[0] == 403
    install.key = at_other_server.key = new
    assert at_other_server.snapshot({"n": 3}).status_code == 202
    assert install.snapshot({"n": 4}).status_code == 202
    assert instances_by_id(server)[install.instance_id]["metrics"] == {"n": 4}


def test_a_rotation_can_be_repeated(shared_server: ServerProcess) -> None:
    install, new = Install(shared_server.url).enroll(), SigningKey.generate()
    assert [rotate(install, new).status_code for _ in range(3)] == [200] * 3
    install.key = new
    assert install.snapshot({"n": 1}).status_code == 202


def test_of_concurrent_rotations_exactly_one_succeeds(server: ServerProcess, database: str) -> None:
    install, new_keys = Install(server.url).enroll(), [SigningKey.generate() for _ in range(2)]
    with admin_cursor(database) as cursor, ThreadPoolExecutor(2) as pool:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])
        responses = [pool.submit(rotate, install, new) for new in new_keys]
        wait_for_writers(cursor, 1, CONFIRM_KEYS)
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])
        statuses = [response.result(TIMEOUT_S).status_code for response in responses]
    # the other one finds the new key either when its signature is checked, or when it is stored
    assert sorted(statuses) == [200, 403]
    install.key = new_keys[statuses.index(200)]
    assert install.snapshot({"n": 1}).status_code == 202


def test_a_rotation_requires_both_signatures(shared_server: ServerProcess) -> None:
    install, new, attacker = Install(shared_server.url).enroll(), SigningKey.generate(), SigningKey.generate()
    body = action(install, "rotate", new_public_key=new.verify_key.encode().hex())
    signed = install.signed(body)
    assert problem(install.post("/v1/rotate", body, signed)) == (401, "missing_signature")
    by_other = {"X-New-Signature": attacker.sign(body).signature.hex()}
    assert problem(install.post("/v1/rotate", body, signed | by_other)) == (403, "bad_signature")
    by_new = {"X-New-Signature": new.sign(body).signature.hex()}
    by_thief = signed | by_new | {"X-Signature": attacker.sign(body).signature.hex()}
    assert problem(install.post("/v1/rotate", body, by_thief)) == (403, "bad_signature")
    assert install.snapshot({"n": 1}).status_code == 202


@pytest.mark.parametrize("name", ["erase", "disclose"])
def test_an_action_requires_its_name_instance_and_a_current_timestamp(server: ServerProcess, name: str) -> None:
    install, other = Install(server.url).enroll(), Install(server.url).enroll()
    now = datetime.now(UTC)
    assert problem(act(install, name, now - timedelta(minutes=6))) == (400, "timestamp_too_old")
    assert problem(act(install, name, now + timedelta(minutes=6))) == (400, "timestamp_ahead")
    for body in (action(install, "activate"), install.snapshot_body({"n": 1}), b'{"action":"%s"}' % name.encode()):
        assert problem(install.post(f"/v1/{name}", body, install.signed(body))) == (400, "bad_field")
    body = action(other, name)
    assert problem(install.post(f"/v1/{name}", body, install.signed(body))) == (403, "instance_mismatch")
    assert instances_by_id(server).keys() == {install.instance_id, other.instance_id}


def test_an_erasure_deletes_all_data_and_returns_a_receipt(server: ServerProcess, database: str) -> None:
    install, neighbour = Install(server.url), Install(server.url).enroll({"n": 5})
    install.register()
    install.activate()
    first, last = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC)
    for number, at in enumerate((first, last - timedelta(hours=1), last)):
        assert install.snapshot({"n": number}, at).status_code == 202
    response = act(install, "erase")
    assert response.status_code == 200
    receipt = response.json()
    assert receipt["instance_id"] == install.instance_id
    assert (receipt["app_name"], receipt["snapshots"]) == ("Ledger", 3)
    assert datetime.fromisoformat(receipt["oldest_snapshot_at"]) == first
    assert datetime.fromisoformat(receipt["newest_snapshot_at"]) == last
    assert count_rows(database, "instances", install) == count_rows(database, "snapshots", install) == 0
    assert instances_by_id(server).keys() == {neighbour.instance_id}
    (kpi,) = server.get("applications/ledger/kpis").json()["kpis"]
    assert (kpi["value"], kpi["instances"]) == (5, 1)
    for refused in (act(install, "erase"), install.activate(), install.snapshot({"n": 9})):
        assert problem(refused) == (403, "unknown_instance")
    assert install.register_signed().status_code == 201


def test_an_erased_instance_is_unknown_in_every_server(
    server: ServerProcess, serve: Callable[..., ServerProcess]
) -> None:
    install, other = Install(server.url).enroll(), serve()
    at_other_server = Install(other.url, instance_id=install.instance_id, key=install.key)
    assert at_other_server.snapshot({"n": 1}).status_code == 202
    assert act(install, "erase").status_code == 200
    assert problem(at_other_server.snapshot({"n": 2})) == (403, "unknown_instance")
    assert problem(Install(other.url, instance_id=install.instance_id).register()) == (409, "key_conflict")


def test_a_disclosure_contains_every_stored_column(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 0, "deep": {"list": [1, None]}})
    digits = "0.10000000000000000000001"
    body = install.snapshot_body("HERE", ago(5), sequence=7).replace(b'"HERE"', b'{"n": %s}' % digits.encode())
    assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    response = act(install, "disclose")
    assert response.status_code == 200
    assert digits in response.text
    disclosed = response.json()
    assert disclosed["instance"]["public_key"] == install.public_key
    assert disclosed["instance"]["os_arch"] == "linux/amd64"
    assert [(snapshot["sequence"], len(snapshot["metrics"])) for snapshot in disclosed["snapshots"]] == [
        (7, 1),
        (None, 2),
    ]
    with admin_cursor(database) as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'instances' "
            # what is derived from the metrics, and the feed's cursor
            "AND column_name NOT IN ('leaves', 'cursor')"
        )
        assert {row[0] for row in cursor.fetchall()} == disclosed["instance"].keys() - {"absences", "versions", "hints"}


def test_a_disclosure_of_many_snapshots_is_chunked_and_complete(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 0})
    for start in range(0, 500, 100):
        members = [{"timestamp": ago(1 + start + i), "metrics": {"n": start + i}} for i in range(100)]
        assert backlog(install, members).status_code == 202
    response = act(install, "disclose")
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert [snapshot["metrics"]["n"] for snapshot in response.json()["snapshots"]] == [*reversed(range(500)), 0]


def test_a_disclosure_over_http_1_0_ends_with_its_connection(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll({"n": 0})
    body = action(install, "disclose")
    keep_alive = {"Connection": "keep-alive"}
    with RawConnection(shared_server.port) as connection:
        connection.send(
            _render_request("/v1/disclose", body, install.signed(body) | keep_alive).replace(
                b"HTTP/1.1", b"HTTP/1.0", 1
            )
        )
        response = connection.answer()
    assert response is not None
    assert [snapshot["metrics"] for snapshot in json.loads(response.body)["snapshots"]] == [{"n": 0}]


def test_unread_disclosures_use_little_memory(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"n": 0})
    with admin_cursor(database) as cursor:
        cursor.execute(LARGE_SNAPSHOTS, [install.instance_id])
    body = action(install, "disclose")
    before = psutil.Process(server.pid).memory_info().rss
    with ExitStack() as stack:
        unread = [stack.enter_context(RawConnection(server.port)) for _ in range(UNREAD)]
        for connection in unread:
            connection.send(_render_request("/v1/disclose", body, install.signed(body)))
        for connection in unread:
            assert connection.has_more(TIMEOUT_S)
        assert psutil.Process(server.pid).memory_info().rss - before < UNREAD * MAX_UNREAD_BYTES


def test_a_server_stops_in_time_after_aborted_disclosures(serve: Callable[..., ServerProcess], database: str) -> None:
    """Also while another request waits for a lock."""
    server = serve(SHM_DRAIN_TIMEOUT="1s")
    install = Install(server.url).enroll({"n": 0})
    with admin_cursor(database) as cursor, RawConnection(server.port) as aborted, RawConnection(server.port) as waiting:
        cursor.execute(LARGE_SNAPSHOTS, [install.instance_id])
        body = action(install, "disclose")
        aborted.send(_render_request("/v1/disclose", body, install.signed(body)))
        assert aborted.has_more(TIMEOUT_S)
        aborted.reset()
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])
        body = install.snapshot_body({"n": 1})
        waiting.send(_render_request("/v1/snapshot", body, install.signed(body)))
        wait_for_writers(cursor, 1, BATCH)
        assert server.terminate() == 0


def test_every_request_of_a_revoked_instance_is_refused(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    url = f"{shared_server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
    assert plain_http.post(url, headers=shared_server.headers).status_code == 200
    refused = [install.register(), install.activate(), install.snapshot({"a": 1}), backlog(install, [])]
    refused += [act(install, "erase"), act(install, "disclose"), rotate(install, SigningKey.generate())]
    member = [{"timestamp": ago(1), "metrics": {}}]
    assert [problem(response) for response in [*refused, backlog(install, member)]] == [(403, "unknown_instance")] * 8


def test_bad_signatures_do_not_delay_a_rotation_in_another_server(
    server: ServerProcess, serve: Callable[..., ServerProcess]
) -> None:
    install, other = Install(server.url).enroll({"n": 0}), serve()
    at_other_server = Install(other.url, instance_id=install.instance_id, key=install.key)
    assert at_other_server.snapshot({"n": 1}).status_code == 202
    impostor, new = Install(other.url, instance_id=install.instance_id), SigningKey.generate()
    for _ in range(3):
        assert problem(impostor.snapshot({"n": 6})) == (403, "bad_signature")
    assert rotate(install, new).status_code == 200
    assert rotate(install, new, other).status_code == 200
    at_other_server.key = new
    assert at_other_server.snapshot({"n": 2}).status_code == 202


@pytest.mark.parametrize("path", ["/v1/register", "/v1/activate", "/v1/snapshot"])
@pytest.mark.parametrize(("ahead", "code"), [(3600, "timestamp_ahead"), (-40 * 86400, "timestamp_too_old")])
def test_the_refusal_of_a_timestamp_has_the_servers_time(
    shared_server: ServerProcess, path: str, ahead: int, code: str
) -> None:
    install = Install(shared_server.url).enroll()
    timestamp = (datetime.now(UTC) + timedelta(seconds=ahead)).isoformat()
    body = install.registration(timestamp=timestamp, metrics={}, action="activate")
    before = datetime.now(UTC)
    response = install.post(path, body, install.signed(body))
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert before <= datetime.fromisoformat(response.json()["server_time"]) <= datetime.now(UTC)


def test_a_signed_registration_with_a_time_is_accepted_once(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    body = install.registration(timestamp=datetime.now(UTC).isoformat())
    assert install.post("/v1/register", body, install.signed(body)).status_code == 201
    first_seen = shared_server.get(f"instances/{install.instance_id}").json()["last_seen_at"]
    replay = install.post("/v1/register", body, install.signed(body))
    assert (replay.status_code, replay.json()["code"]) == (403, "replayed")
    assert shared_server.get(f"instances/{install.instance_id}").json()["last_seen_at"] == first_seen
    newer = install.registration(timestamp=datetime.now(UTC).isoformat(), app_version="2")
    assert install.post("/v1/register", newer, install.signed(newer)).status_code == 200
    item = shared_server.get(f"instances/{install.instance_id}").json()
    assert item["last_seen_at"] > first_seen
    assert item["app_version"] == "2"


def test_a_signed_registration_without_a_time_is_no_further_sign_of_life(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    seen_at = shared_server.get(f"instances/{install.instance_id}").json()["last_seen_at"]
    body = install.registration()
    assert install.post("/v1/register", body, install.signed(body)).status_code == 200
    assert shared_server.get(f"instances/{install.instance_id}").json()["last_seen_at"] == seen_at


def test_an_unsigned_registration_ignores_its_time(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    assert install.register(timestamp="not a time").status_code == 201
