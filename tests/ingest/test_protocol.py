"""The client protocol over real sockets, against a real server process."""

import json
import select
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest

from tests.support import plain_http
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.responses import instances_by_id, problem
from tests.support.server_process import ServerProcess

WIRE = Path(__file__).parent.parent / "wire"


@pytest.mark.parametrize("file", sorted(WIRE.glob("*.json")), ids=lambda file: file.stem)
def test_the_official_clients_are_accepted_byte_for_byte(serve: Callable[..., ServerProcess], file: Path) -> None:
    server = serve(SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d")
    register, activate, snapshot = json.loads(file.read_text())["requests"]

    def replay(request: dict[str, Any]) -> httpx.Response:
        body = request["body"].encode()
        headers = {name: value for name, value in request["headers"].items() if name.lower() != "content-length"}
        return plain_http.post(f"{server.url}{request['path']}", content=body, headers=headers)

    assert replay(register).status_code == 201
    answer = replay(activate)
    assert (answer.status_code, answer.json()["status"]) == (200, "active")
    assert replay(snapshot).status_code == 202
    altered = snapshot | {"body": snapshot["body"].replace("1284", "1285")}
    assert problem(replay(altered)) == (401, "bad_signature")
    assert problem(replay(activate | {"body": '{"action":"activate"} '})) == (401, "bad_signature")
    sent = json.loads(snapshot["body"])
    item = instances_by_id(server)[sent["instance_id"]]
    assert item["metrics"] == sent["metrics"]
    assert (item["app_name"], item["app_slug"], item["status"]) == ("Café Ledger", "cafe-ledger", "active")


def test_registering_again_is_told_apart_from_registering_first(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    assert install.register().status_code == 201
    assert install.register().status_code == 200


def test_a_known_id_with_another_key_is_a_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    thief = Install(shared_server.url, instance_id=install.instance_id)
    assert problem(thief.register()) == (409, "key_conflict")
    assert problem(thief.activate()) == (401, "bad_signature")
    assert problem(thief.snapshot({"a": 1})) == (401, "bad_signature")


def test_an_unsigned_register_of_a_known_instance_waits_for_its_signature(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Ledger", app_version="1.0").enroll({"a": 1})
    assert install.register(app_name="Hijacked", app_version="6.6.6", environment="dev").status_code == 200
    item = instances_by_id(server)[install.instance_id]
    assert (item["app_name"], item["app_version"], item["environment"]) == ("Ledger", "1.0", "production")
    assert {app["slug"] for app in server.get("applications").json()} == {"ledger"}
    assert install.register(app_version="1.1").status_code == 200
    assert install.snapshot({"a": 2}).status_code == 202
    item = instances_by_id(server)[install.instance_id]
    assert (item["app_name"], item["app_version"], item["metrics"]) == ("Ledger", "1.1", {"a": 2})


def test_a_signed_register_takes_effect_at_once(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    for version, status in (("1.0", 201), ("1.1", 200)):
        body = install.registration(app_version=version)
        assert install.post("/v1/register", body, install.signed(body)).status_code == status
        item = instances_by_id(shared_server)[install.instance_id]
        assert (item["app_version"], item["status"]) == (version, "active")


def test_a_register_whose_signature_does_not_hold_changes_nothing(server: ServerProcess) -> None:
    install, other = Install(server.url), Install(server.url)
    body = install.registration()
    signature = other.signed(body)["X-Signature"]
    headers = install.signed(body) | {"X-Signature": signature}
    assert problem(install.post("/v1/register", body, headers)) == (401, "bad_signature")
    assert instances_by_id(server) == {}


def test_an_application_comes_to_be_only_when_a_key_is_proven(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Ghost")
    install.register()
    assert server.get("applications").json() == []
    assert instances_by_id(server)[install.instance_id]["status"] == "pending"
    assert instances_by_id(server)[install.instance_id]["last_seen_at"] is None
    assert install.activate().json() == {"status": "active"}
    assert [app["name"] for app in server.get("applications").json()] == ["Ghost"]


def test_activating_again_is_no_error(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    install.register()
    assert [install.activate().json()["status"] for _ in range(3)] == ["active"] * 3


def test_the_first_signed_snapshot_activates_under_tofu(shared_server: ServerProcess) -> None:
    """The first signed snapshot activates where keys are trusted on first use."""
    install = Install(shared_server.url)
    install.register()
    assert install.snapshot({"a": 1}).status_code == 202
    assert instances_by_id(shared_server)[install.instance_id]["status"] == "active"


def test_nobody_unknown_gets_in(shared_server: ServerProcess) -> None:
    stranger = Install(shared_server.url)
    assert problem(stranger.activate()) == (403, "unknown_instance")
    assert problem(stranger.snapshot({"a": 1})) == (403, "unknown_instance")


def test_one_install_cannot_write_in_the_name_of_another(shared_server: ServerProcess) -> None:
    mallory, victim = Install(shared_server.url).enroll({"a": 1}), Install(shared_server.url).enroll({"a": 1})
    body = victim.snapshot_body({"a": 999})
    assert problem(mallory.post("/v1/snapshot", body, mallory.signed(body))) == (403, "instance_mismatch")
    forged = mallory.signed(body) | {"X-Instance-ID": victim.instance_id}
    assert problem(mallory.post("/v1/snapshot", body, forged)) == (401, "bad_signature")
    assert instances_by_id(shared_server)[victim.instance_id]["metrics"] == {"a": 1}


def decide(server: ServerProcess, install: Install, decision: str) -> httpx.Response:
    """An admin's decision on an instance."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{decision}"
    return plain_http.post(url, headers=server.headers)


def test_manual_activation_stores_nothing_before_approval(
    serve: Callable[..., ServerProcess],
) -> None:
    """Where activation is manual nothing is kept before an admin approves."""
    server = serve(SHM_ACTIVATION="manual")
    install = Install(server.url)
    install.register()
    assert install.activate().json() == {"status": "pending"}
    assert problem(install.snapshot({"a": 1})) == (403, "not_approved")
    item = instances_by_id(server)[install.instance_id]
    assert (item["status"], item["metrics"]) == ("pending", {})
    assert decide(server, install, "approve").json()["status"] == "active"
    assert decide(server, install, "approve").status_code == 200
    assert install.activate().json() == {"status": "active"}
    assert install.snapshot({"a": 1}).status_code == 202


def test_decisions_want_an_admin_and_an_instance(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    assert problem(decide(shared_server, install, "revoke")) == (404, "no_such_instance")
    url = f"{shared_server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
    assert problem(plain_http.post(url)) == (401, "missing_token")


def test_a_revoked_instance_is_refused_for_good_by_every_server(serve: Callable[..., ServerProcess]) -> None:
    server, other = serve(), serve()
    install = Install(server.url).enroll({"a": 1})
    assert decide(other, install, "revoke").json()["status"] == "revoked"
    assert problem(decide(other, install, "approve")) == (409, "revoked_for_good")
    assert server.get("applications/ledger/kpis").json()["kpis"] == []
    assert problem(install.snapshot({"a": 2})) == (403, "unknown_instance")
    assert problem(install.activate()) == (403, "unknown_instance")
    assert problem(install.register()) == (403, "unknown_instance")
    assert instances_by_id(server)[install.instance_id]["metrics"] == {"a": 1}


def test_a_replayed_snapshot_is_stored_once_and_changes_nothing(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll()
    at = datetime.now(UTC)
    body = install.snapshot_body({"a": 1}, at)
    assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    before = instances_by_id(server)[install.instance_id]
    for _ in range(3):
        assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    assert install.snapshot({"a": 2}, at).status_code == 202
    assert instances_by_id(server)[install.instance_id] == before
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT metrics::text FROM snapshots WHERE snapshot_at = %s", (at,))
        assert cursor.fetchall() == [('{"a": 1}',)]
    connection.close()


def test_the_current_snapshot_is_the_newest_whatever_order_they_come_in(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    now = datetime.now(UTC)
    for minutes, version in ((3, "1.3"), (5, "1.5"), (1, "1.1"), (4, "1.4")):
        assert (
            install.snapshot({"m": minutes}, now + timedelta(seconds=minutes), app_version=version).status_code == 202
        )
    item = instances_by_id(shared_server)[install.instance_id]
    assert (item["metrics"], item["app_version"]) == ({"m": 5}, "1.5")


def test_a_body_over_the_limit_is_refused_before_it_is_read(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    assert problem(install.snapshot({"a": "x" * 70_000})) == (413, "body_too_large")
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_length_that_is_no_number_is_refused(shared_server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n")
        assert raw.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
    assert "Traceback" not in shared_server.log


def test_slow_readers_do_not_hold_up_the_intake(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll()
    with admin_cursor(database) as cursor, ThreadPoolExecutor(8) as pool:
        cursor.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        readers = [pool.submit(server.get, "stats") for _ in range(7)]
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert install.snapshot({"a": 1}).status_code == 202
        cursor.execute("ROLLBACK")
        assert all(reader.result().status_code == 200 for reader in readers)


def test_registering_under_other_names_holds_no_snapshot_off(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    with ThreadPoolExecutor(4) as pool:
        strangers = [pool.submit(install.register, app_name=f"Name {number}") for number in range(60)]
        statuses = [install.snapshot({"n": number}).status_code for number in range(60)]
        statuses += [install.activate().status_code for _ in range(20)]
        assert {stranger.result().status_code for stranger in strangers} == {200}
    assert set(statuses) == {202, 200}


def test_a_chunked_body_over_the_limit_is_refused(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    answer = plain_http.post(
        f"{shared_server.url}/v1/snapshot",
        content=(b"x" * 1000 for _ in range(80)),
        headers=install.signed(b""),
    )
    assert problem(answer) == (413, "body_too_large")


NO_OBJECTS = [b"", b"{", b"[]", b"\xff", b"\xef\xbb\xbf{}", b'"x"', b"null", b"[" * 60_000]
CANNOT_BE_READ = [(path, body) for path in ("/v1/register", "/v1/activate", "/v1/snapshot") for body in NO_OBJECTS]


@pytest.mark.parametrize(("path", "body"), [*CANNOT_BE_READ, ("/v1/register", b"{}"), ("/v1/snapshot", b"{}")])
def test_a_body_that_is_no_such_object_gets_a_4xx_and_no_traceback(
    shared_server: ServerProcess, path: str, body: bytes
) -> None:
    install = Install(shared_server.url).enroll()
    status, _ = problem(install.post(path, body, install.signed(body) if path != "/v1/register" else {}))
    assert status == 400
    assert "Traceback" not in shared_server.log


def test_405_and_404_have_the_same_form_of_error(shared_server: ServerProcess) -> None:
    """The wrong method and an unknown address have the same shape of error."""
    assert problem(plain_http.get(f"{shared_server.url}/v1/snapshot")) == (405, "method_not_allowed")
    assert problem(plain_http.get(f"{shared_server.url}/nowhere")) == (404, "no_such_address")
    assert problem(plain_http.get(f"{shared_server.url}/v1/snapshot/x")) == (404, "no_such_address")


def test_many_first_installs_of_one_new_application_at_once_all_get_in(server: ServerProcess) -> None:
    installs = [Install(server.url, app_name="Brand New") for _ in range(40)]
    with ThreadPoolExecutor(20) as pool:
        assert len(list(pool.map(Install.enroll, installs))) == 40
    (application,) = server.get("applications").json()
    assert application["instances"]["active"] == 40


def test_bodies_on_their_way_are_bounded_all_together(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_READING="100k")
    head = b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
    try:
        for each in slow:
            each.sendall(head + b"x" * 59_000)
        answers = [each for each in slow if select.select([each], [], [], 2)[0]]
        assert len(answers) >= 1
        assert answers[0].recv(4096).startswith(b"HTTP/1.1 503 ")
        assert len(answers) < len(slow)
    finally:
        for each in slow:
            each.close()
    assert Install(server.url).enroll({"a": 1})


def test_a_request_that_is_refused_and_then_unreadable_gets_one_answer(shared_server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as raw:
        raw.sendall(b"GET /v1/snapshot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        said = b""
        while piece := raw.recv(4096):
            said += piece
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.startswith(b"HTTP/1.1 405 ")
