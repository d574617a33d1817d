"""No log, response or table identifies a client, whatever it requests and whatever fails."""

import hashlib
import itertools
import json
import re
import signal
import socket
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.anonymous_client import TRACES, AnonymousClient, rows_as_text, with_marker
from tests.support.clusters import Cluster, cluster_of_servers, wait_for
from tests.support.databases import admin_cursor
from tests.support.hostile import CASES, Case
from tests.support.hostile.case import post, signed, snapshot
from tests.support.installs import Install
from tests.support.responses import READER_ERROR_CODES
from tests.support.server_process import ServerProcess

PROTOCOL = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
CODE = re.compile(rb'"code":"([a-z_]+)"')
CONCURRENCY = 40  # more than SHM_QUEUE
INSTALL_MARKER = "qz9k"  # sent by installs: it occurs in tables and responses, and in no log
VIEWER = "viewer-zqx7-0123456789"

# Separate tests fill the disk; a stopping server accepts no connection; validation refuses all that is unstorable.
EXCLUDED_CODES = {
    *("database_full", "database_incomplete", "shutting_down", "unstorable", "too_many_connections"),
    *("name_taken", "too_many_changes", "too_many_overrides"),  # of an admin's edits, which name no install
    *("signed_before_erasure", "unknown_application"),  # constant sentences
    *("no_repository", "repository_changed", "github_unreachable", "github_refused"),  # of an admin's request
    "bad_request",  # of errors of the HTTP library that have no other code
}

SHORT_TIMEOUTS = {
    "SHM_LOG_LEVEL": "debug",
    "SHM_DB_PATIENCE": "1s",
    "SHM_STATEMENT_TIMEOUT": "1s",
    "SHM_BODY_TIMEOUT": "1s",
    "SHM_QUEUE": "20",
    "SHM_FEED_SUBSCRIBERS": "1",
    "SHM_MAX_TOKENS": "4",  # those of both servers, the viewer's, and one that the test creates
}
STRICT = {
    "SHM_ACTIVATION": "manual",
    "SHM_RATELIMIT_ENABLED": "true",
    "SHM_RATELIMIT_REGISTER_BURST": "10",
    "SHM_RATELIMIT_REGISTER_PERIOD": "1d",  # it does not refill, however slow the machine is
    "SHM_TRUSTED_PROXIES": "127.0.0.77/32",
}
ASYNCIO_DEBUG = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "x" * 24,
    "Sec-WebSocket-Version": "13",
}
ADMIN = "/api/v1/admin"
UNKNOWN_ID_PATH = f"{ADMIN}/instances/{uuid.uuid4()}"
READS = [
    *("/api/v1/ready", "/api/v1/healthcheck", "/nowhere?token=zqx7", f"{ADMIN}/stats?token=zqx7", f"{ADMIN}/stats"),
    *(
        f"{ADMIN}/applications",
        f"{ADMIN}/applications/nothing",
        f"{ADMIN}/instances?limit=1",
        f"{ADMIN}/feed",
        UNKNOWN_ID_PATH,
    ),
    *(f"{ADMIN}/tokens", f"{ADMIN}/tokens?after=zqx7", f"{ADMIN}/tokens?limit=zqx7"),
    *(f"{ADMIN}/instances?limit=x", f"{ADMIN}/instances?after=zqx7", f"{ADMIN}/instances?app=%ffzqx7", "/metrics"),
    f"{ADMIN}/instances?where=nonsense",
]
SHORTENED_IDS = [f"{ADMIN}/instances/{digit}" for digit in "0123456789abcdef"]  # some of these are ambiguous


def cases_of_each_answer(count: int) -> list[Case]:
    """Up to `count` hostile requests of each expected answer."""
    cases = sorted(CASES, key=lambda case: repr(case.expected))
    groups = itertools.groupby(cases, key=lambda case: case.expected)
    return [case for _, group in groups for case in itertools.islice(group, count)]


@pytest.mark.parametrize(
    ("debugging", "cases"),
    [
        pytest.param(ASYNCIO_DEBUG, cases_of_each_answer(1), id="a case of each answer"),
        pytest.param(ASYNCIO_DEBUG, CASES, id="every case", marks=pytest.mark.long),
        pytest.param({}, CASES, id="without debug mode", marks=pytest.mark.long),  # its log has fewer lines
    ],
)
def test_no_fault_leaves_a_trace_of_a_client(
    postgres_dir: Path, debugging: dict[str, str], cases: Sequence[Case]
) -> None:
    with cluster_of_servers(postgres_dir, 1, **SHORT_TIMEOUTS, **debugging) as cluster:
        (server,) = cluster.servers
        strict = ServerProcess(
            postgres_dir / "strict", {"SHM_DB_DSN": cluster.dsn, **SHORT_TIMEOUTS, **STRICT, **debugging}
        )
        cluster.servers.append(strict)
        strict.start()
        client, limited = AnonymousClient(server.port), AnonymousClient(strict.port)

        send_corpus(client, cases, [enroll(client) for _ in cases])
        read_with_every_token(client, server, cluster)
        created_token = create_and_remove_tokens(client, server, cluster)
        exceed_rate_limits(limited)
        send_during_database_faults(client, server, cluster)
        send_during_an_outage(client, server, cluster, cases[::4])

        for each in cluster.servers:
            assert each.terminate() == 0
            assert "asyncio: " in each.log  # the log has messages of libraries
        responses = client.responses + limited.responses
        expected, received = documented() - EXCLUDED_CODES, received_codes(responses)
        assert received == expected, f"more: {' '.join(received - expected)}; missing: {' '.join(expected - received)}"
        tokens = [server.admin_token, strict.admin_token]
        assert_absent(b"".join(responses).decode("latin1"), *TRACES, *tokens)
        assert_absent("\n".join(rows_as_text(cluster.dsn)), *TRACES, *tokens, created_token)
        for log in (server.log, strict.log, (cluster.postgres_dir / "log").read_text()):
            assert_absent(log, *TRACES, *tokens, created_token, INSTALL_MARKER, f" {socket.gethostname()} ")


def send_corpus(client: AnonymousClient, cases: Sequence[Case], installs: Sequence[Install]) -> None:
    """Sends the hostile requests with identifying headers, each as one of the installs in turn."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        jobs = [
            pool.submit(client.send, with_marker(case.raw(install)), half_close=case.waits)
            for case, install in zip(cases, itertools.cycle(installs), strict=False)
        ]
        for job in jobs:
            job.result()
    endless = with_marker(post("/v1/snapshot", b"{}", {})).replace(b"Content-Length: 2", b"Content-Length: 60")
    client.send(endless)


def enroll(client: AnonymousClient) -> Install:
    """An install that the client has registered and activated."""
    install = Install("", app_name=f"Application {INSTALL_MARKER}", environment=INSTALL_MARKER)
    client.send(with_marker(post("/v1/register", install.registration(), {})))
    client.send(with_marker(signed("/v1/activate", install, ACTIVATE)))
    return install


ACTIVATE = b'{"action":"activate"}'


def read_with_every_token(client: AnonymousClient, server: ServerProcess, cluster: Cluster) -> None:
    """Requests all paths of readers without a token, with an invalid one, as viewer and as admin; opens feeds."""
    with admin_cursor(cluster.dsn) as cursor:
        cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES (%s, 'viewer', 'test')", (hashed(VIEWER),))
    viewer, admin = {"Authorization": f"Bearer {VIEWER}"}, server.headers
    for path in (*READS, *SHORTENED_IDS):
        for headers in ({}, {"Authorization": ""}, viewer, admin):
            client.request(f"GET {path}", headers)
    instance = f"POST {ADMIN}/instances/{enroll(client).instance_id}"
    for action, headers in (("revoke", viewer), ("revoke", admin), ("approve", admin)):
        client.request(f"{instance}/{action}", headers)
    assert b"101 Switching Protocols" in client.request(f"GET {ADMIN}/feed", admin | UPGRADE, max_bytes=1)
    for odd in ({"Sec-WebSocket-Version": "99"}, {"Origin": "https://origin-zqx7.example"}):
        client.request(f"GET {ADMIN}/feed", admin | UPGRADE | odd)
    # While this feed is open, the next one is refused.
    with client.open_request(f"GET {ADMIN}/feed", admin | UPGRADE):
        client.request(f"GET {ADMIN}/feed", admin | UPGRADE, max_bytes=1_000)


def create_and_remove_tokens(client: AnonymousClient, server: ServerProcess, cluster: Cluster) -> str:
    """Creates tokens up to the limit, sends invalid bodies, removes and rotates tokens. Returns the created token."""
    for body in (b'{"name":"zqx7","role":"viewer","unknown":"zqx7"}', b"zqx7", b'{"name":"zqx7' + b"7" * 100_000):
        client.request(f"POST {ADMIN}/tokens", server.headers, body=body)
    payload = f'{{"name":"{INSTALL_MARKER}","role":"viewer","expires_in":"1d"}}'.encode()
    created, refused = (client.request(f"POST {ADMIN}/tokens", server.headers, body=payload) for _ in range(2))
    assert b"too_many_tokens" in refused
    with admin_cursor(cluster.dsn) as cursor:
        cursor.execute("SELECT id FROM tokens WHERE token_hash = %s", (hashed(server.admin_token),))
        (own,) = cursor.fetchone() or ("",)
    for path in (f"{ADMIN}/tokens/{own}", f"{ADMIN}/tokens/{uuid.uuid4()}", f"{ADMIN}/instances/ab"):
        client.request(f"DELETE {path}", server.headers)
    client.request(f"POST {ADMIN}/tokens/{own}/rotate", server.headers)
    client.request(f"GET {ADMIN}/feed", server.headers | UPGRADE, body=b"zqx7")
    return json.loads(created.partition(b"\r\n\r\n")[2])["token"]  # type: ignore[no-any-return]


def hashed(token: str) -> bytes:
    """The stored form of a token."""
    return hashlib.sha256(token.encode()).digest()


def exceed_rate_limits(client: AnonymousClient) -> None:
    """Sends a snapshot before the approval, registrations over the limit, and invalid tokens up to the ban."""
    install = enroll(client)
    client.send(with_marker(snapshot(install, b'{"a":1}')))
    for _ in range(12):
        client.send(with_marker(post("/v1/register", install.registration(), {})))
    for number in range(12):  # after the registrations, because guesses take long and their budget would refill
        client.request(f"GET {ADMIN}/stats", {"Authorization": f"Bearer guess-zqx7-{number}"})


def send_during_database_faults(client: AnonymousClient, server: ServerProcess, cluster: Cluster) -> None:
    """Sends requests while statements wait for a lock and while tables are missing, which cause internal errors."""
    installs = [enroll(client) for _ in range(CONCURRENCY)]
    with admin_cursor(cluster.dsn) as cursor, ThreadPoolExecutor(CONCURRENCY) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
        list(pool.map(lambda install: client.send(with_marker(snapshot(install, b'{"a":1}'))), installs))
        cursor.execute("ROLLBACK")
        for table in ("snapshots", "instances", "applications", "tokens"):
            cursor.execute(f"ALTER TABLE {table} RENAME TO renamed")
            send_to_all_paths(client, server, installs[0])
            cursor.execute(f"ALTER TABLE renamed RENAME TO {table}")


def send_during_an_outage(
    client: AnonymousClient, server: ServerProcess, cluster: Cluster, cases: Sequence[Case]
) -> None:
    """Kills PostgreSQL under load and sends requests before its restart."""
    installs = [enroll(client) for _ in range(CONCURRENCY)]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        before = pool.map(lambda install: client.send(with_marker(snapshot(install, b'{"a":1}'))), installs)
        cluster.kill_postgres(signal.SIGQUIT)
        during = pool.map(lambda install: client.send(with_marker(snapshot(install, b'{"a":2}'))), installs)
        asked = pool.map(lambda install: send_to_all_paths(client, server, install), installs[:3])
        send_corpus(client, cases, installs)
        for each in (before, during, asked):
            list(each)
    cluster.start_postgres()
    wait_for(cluster.is_ready, "every server ready")


def send_to_all_paths(client: AnonymousClient, server: ServerProcess, install: Install) -> None:
    """Sends one valid request to each path."""
    client.send(with_marker(post("/v1/register", install.registration(), {})))
    client.send(with_marker(signed("/v1/activate", install, ACTIVATE)))
    client.send(with_marker(signed("/v1/disclose", install, b'{"action":"disclose"}')))
    client.send(with_marker(snapshot(install, b'{"qz9k":1}')))
    for path in READS:
        client.request(f"GET {path}", server.headers)
    client.request(f"GET {ADMIN}/feed", server.headers | UPGRADE, max_bytes=1)


def documented() -> set[str]:
    """All documented error codes."""
    table = PROTOCOL.read_text().partition("## Refusals")[2].partition("## Test vectors")[0]
    return (set(re.findall(r"`([a-z]+_[a-z_]+)`", table)) - {"server_time"}) | READER_ERROR_CODES  # a field, not a code


def received_codes(responses: list[bytes]) -> set[str]:
    """All error codes in the responses."""
    return {code.decode() for answer in responses for code in CODE.findall(answer)}


def assert_absent(text: str, *traces: str) -> None:
    """Asserts that the text contains none of the traces."""
    for trace in traces:
        index = text.find(trace)
        assert index < 0, text[max(0, index - 300) : index + 100]
