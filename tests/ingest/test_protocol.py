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
from nacl.signing import SigningKey

from shm.server.handlers.ingest import ENDPOINTS
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, waiting_statements
from tests.support.installs import Install
from tests.support.responses import instances_by_id, problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import action

pytestmark = pytest.mark.cluster

WIRE = Path(__file__).parent.parent / "wire"


@pytest.mark.parametrize("file", sorted(WIRE.glob("official-*.json")), ids=lambda file: file.stem)
def test_the_official_clients_are_accepted_byte_for_byte(serve: Callable[..., ServerProcess], file: Path) -> None:
    server = serve(SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d")
    register, activate, snapshot = json.loads(file.read_text())["requests"]

    def replay(request: dict[str, Any]) -> httpx.Response:
        body = request["body"].encode()
        headers = {name: value for name, value in request["headers"].items() if name.lower() != "content-length"}
        return plain_http.post(f"{server.url}{request['path']}", content=body, headers=headers)

    assert replay(register).status_code == 201
    response = replay(activate)
    assert (response.status_code, response.json()["status"]) == (200, "active")
    assert replay(snapshot).status_code == 202
    altered = snapshot | {"body": snapshot["body"].replace("1284", "1285")}
    assert problem(replay(altered)) == (403, "bad_signature")
    assert problem(replay(activate | {"body": '{"action":"activate"} '})) == (403, "bad_signature")
    sent = json.loads(snapshot["body"])
    item = instances_by_id(server)[sent["instance_id"]]
    assert item["metrics"] == sent["metrics"]
    assert (item["app_name"], item["app_slug"], item["status"]) == ("Café Ledger", "cafe-ledger", "active")


def test_a_second_registration_gets_200_instead_of_201(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    assert install.register().status_code == 201
    assert install.register().status_code == 200


def test_a_known_id_with_another_key_is_a_conflict(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    attacker = Install(shared_server.url, instance_id=install.instance_id)
    assert problem(attacker.register()) == (409, "key_conflict")
    assert problem(attacker.activate()) == (403, "bad_signature")
    assert problem(attacker.snapshot({"a": 1})) == (403, "bad_signature")


def test_an_unsigned_registration_is_staged_until_a_signed_request(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Ledger", app_version="1.0").enroll({"a": 1})
    assert install.register(app_name="Hijacked", app_version="6.6.6", environment="dev").status_code == 200
    item = instances_by_id(server)[install.instance_id]
    assert (item["app_name"], item["app_version"], item["environment"]) == ("Ledger", "1.0", "production")
    assert {app["slug"] for app in server.get("applications").json()} == {"ledger"}
    assert install.register(app_version="1.1").status_code == 200
    assert install.snapshot({"a": 2}).status_code == 202
    item = instances_by_id(server)[install.instance_id]
    assert (item["app_name"], item["app_version"], item["metrics"]) == ("Ledger", "1.1", {"a": 2})


def test_a_signed_registration_takes_effect_at_once(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    for version, status in (("1.0", 201), ("1.1", 200)):
        body = install.registration(app_version=version)
        assert install.post("/v1/register", body, install.signed(body)).status_code == status
        item = instances_by_id(shared_server)[install.instance_id]
        assert (item["app_version"], item["status"]) == (version, "active")


def test_a_registration_with_an_invalid_signature_changes_nothing(server: ServerProcess) -> None:
    install, other = Install(server.url), Install(server.url)
    body = install.registration()
    signature = other.signed(body)["X-Signature"]
    headers = install.signed(body) | {"X-Signature": signature}
    assert problem(install.post("/v1/register", body, headers)) == (403, "bad_signature")
    assert instances_by_id(server) == {}


def test_an_application_is_created_when_a_key_is_confirmed(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Ghost")
    install.register()
    assert server.get("applications").json() == []
    assert instances_by_id(server)[install.instance_id]["status"] == "pending"
    assert instances_by_id(server)[install.instance_id]["last_seen_at"] is None
    assert install.activate().json()["status"] == "active"
    assert [app["name"] for app in server.get("applications").json()] == ["Ghost"]


def test_activation_can_be_repeated(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    install.register()
    assert [install.activate().json()["status"] for _ in range(3)] == ["active"] * 3


def test_the_first_signed_snapshot_activates_under_tofu(shared_server: ServerProcess) -> None:
    """TOFU: keys are trusted on first use."""
    install = Install(shared_server.url)
    install.register()
    assert install.snapshot({"a": 1}).status_code == 202
    assert instances_by_id(shared_server)[install.instance_id]["status"] == "active"


def test_an_unknown_instance_is_refused(shared_server: ServerProcess) -> None:
    unknown = Install(shared_server.url)
    assert problem(unknown.activate()) == (403, "unknown_instance")
    assert problem(unknown.snapshot({"a": 1})) == (403, "unknown_instance")


@pytest.mark.parametrize("path", [path for path, endpoint in ENDPOINTS.items() if endpoint.requires_signature])
def test_every_request_is_signed_over_its_exact_bytes(shared_server: ServerProcess, path: str) -> None:
    install, new = Install(shared_server.url).enroll({"a": 1}), SigningKey.generate()
    more: dict[str, Any] = {"metrics": {"a": 2}, "snapshots": [], "new_public_key": new.verify_key.encode().hex()}
    body = action(install, path.removeprefix("/v1/"), **more)
    assert problem(install.post(path, body)) == (401, "missing_instance_id")
    changed = body.replace(b'"metrics"', b'"metricS"')
    headers = install.signed(body) | {"X-New-Signature": new.sign(changed).signature.hex()}
    assert problem(install.post(path, changed, headers)) == (403, "bad_signature")


def test_an_install_cannot_write_as_another(shared_server: ServerProcess) -> None:
    attacker, victim = Install(shared_server.url).enroll({"a": 1}), Install(shared_server.url).enroll({"a": 1})
    body = victim.snapshot_body({"a": 999})
    assert problem(attacker.post("/v1/snapshot", body, attacker.signed(body))) == (403, "instance_mismatch")
    forged = attacker.signed(body) | {"X-Instance-ID": victim.instance_id}
    assert problem(attacker.post("/v1/snapshot", body, forged)) == (403, "bad_signature")
    assert instances_by_id(shared_server)[victim.instance_id]["metrics"] == {"a": 1}


def post_decision(server: ServerProcess, install: Install, decision: str) -> httpx.Response:
    """Approves or revokes an instance as an admin."""
    url = f"{server.url}/api/v1/admin/instances/{install.instance_id}/{decision}"
    return plain_http.post(url, headers=server.headers)


def test_manual_activation_stores_nothing_before_approval(
    serve: Callable[..., ServerProcess],
) -> None:
    """With SHM_ACTIVATION=manual, snapshots are refused until an admin approves."""
    server = serve(SHM_ACTIVATION="manual")
    install = Install(server.url)
    install.register()
    assert install.activate().json()["status"] == "pending"
    assert problem(install.snapshot({"a": 1})) == (403, "not_approved")
    item = instances_by_id(server)[install.instance_id]
    assert (item["status"], item["metrics"]) == ("pending", {})
    assert post_decision(server, install, "approve").json()["status"] == "active"
    assert post_decision(server, install, "approve").status_code == 200
    assert install.activate().json()["status"] == "active"
    assert install.snapshot({"a": 1}).status_code == 202


def test_approve_and_revoke_require_an_admin_and_an_instance(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url)
    assert problem(post_decision(shared_server, install, "revoke")) == (404, "no_such_instance")
    url = f"{shared_server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
    assert problem(plain_http.post(url)) == (401, "missing_token")


def test_a_revoked_instance_is_refused_for_good_by_every_server(serve: Callable[..., ServerProcess]) -> None:
    server, other = serve(), serve()
    install = Install(server.url).enroll({"a": 1})
    assert post_decision(other, install, "revoke").json()["status"] == "revoked"
    assert problem(post_decision(other, install, "approve")) == (409, "revoked_for_good")
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


def test_the_current_snapshot_is_the_newest_in_any_order_of_arrival(shared_server: ServerProcess) -> None:
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
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=60) as raw:
        raw.sendall(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_invalid_content_length_is_refused(shared_server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=60) as raw:
        raw.sendall(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n")
        assert raw.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
    assert "Traceback" not in shared_server.log


def test_slow_reads_do_not_delay_the_intake(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll()
    with admin_cursor(database) as cursor, ThreadPoolExecutor(8) as pool:
        cursor.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        readers = [pool.submit(server.get, "stats") for _ in range(7)]
        wait_for(lambda: bool(waiting_statements(database)), "a read that waits for the lock")
        assert install.snapshot({"a": 1}).status_code == 202
        cursor.execute("ROLLBACK")
        assert all(reader.result().status_code == 200 for reader in readers)


def test_registrations_with_other_names_do_not_delay_snapshots(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    with ThreadPoolExecutor(4) as pool:
        registrations = [pool.submit(install.register, app_name=f"Name {number}") for number in range(60)]
        statuses = [install.snapshot({"n": number}).status_code for number in range(60)]
        statuses += [install.activate().status_code for _ in range(20)]
        assert {registration.result().status_code for registration in registrations} == {200}
    assert set(statuses) == {202, 200}


def test_a_chunked_body_over_the_limit_is_refused(shared_server: ServerProcess) -> None:
    install = Install(shared_server.url).enroll()
    response = plain_http.post(
        f"{shared_server.url}/v1/snapshot",
        content=(b"x" * 1000 for _ in range(80)),
        headers=install.signed(b""),
    )
    assert problem(response) == (413, "body_too_large")


NOT_JSON_OBJECTS = [b"", b"{", b"[]", b"\xff", b"\xef\xbb\xbf{}", b'"x"', b"null", b"[" * 60_000]
PATHS = ("/v1/register", "/v1/activate", "/v1/snapshot")
INVALID_BODIES = [(path, body) for path in PATHS for body in NOT_JSON_OBJECTS]


@pytest.mark.parametrize(("path", "body"), [*INVALID_BODIES, ("/v1/register", b"{}"), ("/v1/snapshot", b"{}")])
def test_an_invalid_body_gets_a_400_and_no_traceback(shared_server: ServerProcess, path: str, body: bytes) -> None:
    install = Install(shared_server.url).enroll()
    status, _ = problem(install.post(path, body, install.signed(body) if path != "/v1/register" else {}))
    assert status == 400
    assert "Traceback" not in shared_server.log


def test_405_and_404_are_problem_documents(shared_server: ServerProcess) -> None:
    assert problem(plain_http.get(f"{shared_server.url}/v1/snapshot")) == (405, "method_not_allowed")
    assert problem(plain_http.get(f"{shared_server.url}/nowhere")) == (404, "no_such_address")
    assert problem(plain_http.get(f"{shared_server.url}/v1/snapshot/x")) == (404, "no_such_address")


def test_many_installs_of_a_new_application_enroll_at_once(server: ServerProcess) -> None:
    installs = [Install(server.url, app_name="Brand New") for _ in range(40)]
    with ThreadPoolExecutor(20) as pool:
        assert len(list(pool.map(Install.enroll, installs))) == 40
    (application,) = server.get("applications").json()
    assert application["instances"]["active"] == 40


def _complete(upload: socket.socket) -> bytes:
    """Sends the rest of a body. The response, or what is left of one to a refused upload."""
    try:
        upload.sendall(b"x" * 1_000)
        return upload.recv(4096)
    except ConnectionError:
        return b""


def test_the_memory_of_all_incomplete_bodies_is_bounded(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_READING="100k")
    head = b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    uploads = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(3)]
    try:
        for upload in uploads:
            upload.sendall(head + b"x" * 59_000)
        answered, _, _ = select.select(uploads, [], [], 60)
        assert answered[0].recv(4096).startswith(b"HTTP/1.1 503 ")
        others = [_complete(upload) for upload in uploads if upload not in answered]
        assert any(other.startswith(b"HTTP/1.1 401 ") for other in others), others
    finally:
        for upload in uploads:
            upload.close()
    assert Install(server.url).enroll({"a": 1})


def test_a_refused_request_with_an_invalid_body_gets_one_response(shared_server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=60) as raw:
        raw.sendall(b"GET /v1/snapshot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        received = b""
        while chunk := raw.recv(4096):
            received += chunk
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 405 ")
