"""Tokens: their roles, expiry and removal, and that their secrets are stored nowhere."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg2
import pytest

from shm.auth.tokens import MAX_NAME_LENGTH, Role
from shm.core.errors import ConfigurationError
from shm.server.app import ROUTES
from shm.server.handlers.base import Handler
from shm.server.http.operations import READ_METHODS, operation, validate_operations
from tests.support import plain_http
from tests.support.anonymous_client import rows_as_text
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, make_read_only, superuser_cursor
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

UNKNOWN_ID = "c77af682-9aa4-412e-904a-c307d3a8a9c2"
FIELDS = {"id", "name", "role", "created_at", "expires_at", "last_used_on"}
NOT_ALLOWED = 1008  # the close code of a feed whose token is no longer valid


def make_path(pattern: str) -> str:
    """A path that matches a route."""
    path = re.sub(r"\(\?P<(instance|token)_id>[^()]*\)", UNKNOWN_ID, pattern)
    return re.sub(r"\(\?P<(slug|app)>.*?\)", "ledger", path)


WRITING_PATHS = sorted(
    (method.upper(), make_path(pattern))
    for pattern, handler in ROUTES
    for method in handler.operations
    if method not in READ_METHODS
)


def create_token(server: ServerProcess, role: str = "viewer", **more: Any) -> dict[str, Any]:
    """Creates a token and returns the response."""
    body = {"name": "a script", "role": role} | more
    response = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers)
    assert response.status_code == 201, response.text
    token: dict[str, Any] = response.json()
    return token


def bearer(token: dict[str, Any]) -> dict[str, str]:
    """The headers of a request with that token."""
    return {"Authorization": f"Bearer {token['token']}"}


def request_status(
    server: ServerProcess, token: dict[str, Any], path: str = "stats", method: str = "GET"
) -> tuple[int, str]:
    """The status and the refusal code of a request with that token."""
    response = plain_http.request(method, f"{server.url}/api/v1/admin/{path}", headers=bearer(token))
    return response.status_code, response.json()["code"] if response.status_code >= 400 else ""


def remove_token(server: ServerProcess, token: dict[str, Any]) -> httpx.Response:
    """The response to the removal of that token by the admin."""
    return plain_http.delete(f"{server.url}/api/v1/admin/tokens/{token['id']}", headers=server.headers)


def fetch_value(cursor: psycopg2.extensions.cursor, sql: str, *parameters: object) -> Any:
    """The value of a query that returns one."""
    cursor.execute(sql, parameters)
    (value,) = cursor.fetchone() or (None,)
    return value


@pytest.fixture(scope="module")
def viewer(shared_server: ServerProcess) -> dict[str, Any]:
    """A viewer's token of the session's server."""
    return create_token(shared_server)


def test_the_list_of_writing_paths_is_not_empty() -> None:
    assert ("DELETE", f"/api/v1/admin/tokens/{UNKNOWN_ID}") in WRITING_PATHS
    assert ("POST", f"/api/v1/admin/instances/{UNKNOWN_ID}/approve") in WRITING_PATHS


@pytest.mark.parametrize(("method", "path"), WRITING_PATHS)
def test_a_viewer_is_refused_on_every_writing_path(
    shared_server: ServerProcess, viewer: dict[str, Any], method: str, path: str
) -> None:
    responses = [
        plain_http.request(method, f"{shared_server.url}{path}", headers=headers, json={"name": "x", "role": "admin"})
        for headers in (bearer(viewer), {})
    ]
    assert [(response.status_code, response.json()["code"]) for response in responses] == [
        (403, "role_too_small"),
        (401, "missing_token"),
    ]


def test_a_viewer_reads_instances_but_not_tokens(shared_server: ServerProcess, viewer: dict[str, Any]) -> None:
    """Nor the audit trail, nor the lists of what admins have changed: all of these, and nothing else."""
    assert request_status(shared_server, viewer, "instances") == (200, "")
    admins_only = {
        path.rpartition("/")[2]
        for path, handler in ROUTES
        if "get" in handler.operations and handler.operations["get"].role is Role.ADMIN
    }
    assert admins_only == {"tokens", "audit", "bulk-changes", "failed-removals"}
    for path in admins_only:
        assert request_status(shared_server, viewer, path) == (403, "role_too_small")


def test_a_handler_that_declares_no_role_is_refused() -> None:
    class Undeclared(Handler):
        async def get(self) -> None:
            """Reads something."""

    with pytest.raises(ConfigurationError, match=r"Undeclared\.get is not an `operation`, so its role is unknown"):
        validate_operations("/undeclared", Undeclared)


def test_a_handler_that_allows_writes_to_viewers_is_refused() -> None:
    class AllowsViewers(Handler):
        @operation("anything", Role.VIEWER)
        async def put(self) -> None:
            """Changes something."""

    class RequiresAdmin(Handler):
        @operation("anything", Role.ADMIN)
        async def put(self) -> None:
            """Changes something."""

    with pytest.raises(
        ConfigurationError, match=r"AllowsViewers\.put changes data but does not require the role admin"
    ):
        validate_operations("/viewers", AllowsViewers)
    validate_operations("/admins", RequiresAdmin)


def test_a_tokens_secret_is_only_in_the_response_that_creates_it(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(SHM_LOG_LEVEL="debug")
    token = create_token(server, "admin", name="Grafana – büro", expires_in="90d")
    assert token.keys() == FIELDS | {"token"}
    assert (token["name"], token["role"], token["last_used_on"]) == ("Grafana – büro", "admin", None)
    created, expires = (datetime.fromisoformat(token[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=90)
    assert request_status(server, token) == (200, "")
    listed = server.get("tokens")
    assert [each.keys() for each in listed.json()] == [FIELDS] * 2
    rows = "\n".join(rows_as_text(database))
    for secret in (token["token"], server.admin_token):
        assert hashlib.sha256(secret.encode()).hexdigest() in rows
        assert hashlib.sha256(secret.encode()).hexdigest() not in listed.text
        for text in (rows, listed.text, server.log):
            assert secret not in text


def test_the_servers_own_token_is_listed(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    assert (own["name"], own["role"], own["expires_at"]) == ("admin.token", "admin", None)
    assert len(server.get("tokens").json()) == 1


def test_an_expired_token_is_refused_like_an_unknown_one(server: ServerProcess, database: str) -> None:
    token = create_token(server, expires_in="1s")
    wait_for(lambda: request_status(server, token) == (401, "bad_token"), "the token's expiry")
    other = create_token(server)
    assert other["expires_at"] is None
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE tokens SET expires_at = now() WHERE id = %s", (other["id"],))
    assert request_status(server, other) == (401, "bad_token")
    assert {each["id"] for each in server.get("tokens").json()} >= {token["id"], other["id"]}


def test_a_removed_token_is_invalid_at_once_in_every_server(serve: Callable[..., ServerProcess]) -> None:
    first, second = serve(), serve()
    token = create_token(first)
    for server in (first, second):
        assert request_status(server, token) == (200, "")
    response = remove_token(second, token)
    assert (response.status_code, response.content) == (204, b"")
    for server in (first, second):
        assert request_status(server, token) == (401, "bad_token")
        assert remove_token(server, token).json()["code"] == "no_such_token"


async def test_an_open_feed_is_closed_when_its_token_becomes_invalid(serve: Callable[..., ServerProcess]) -> None:
    first, second = serve(), serve()
    removed, expired = create_token(first), create_token(first, expires_in="3s")
    async with (
        subscribe(second) as admin_subscriber,
        subscribe(second, headers=bearer(removed)) as one_subscriber,
        subscribe(second, headers=bearer(expired)) as other_subscriber,
    ):
        await asyncio.to_thread(remove_token, first, removed)
        assert await one_subscriber.closed() == await other_subscriber.closed() == NOT_ALLOWED
        assert (await admin_subscriber.message())["type"] == "hello"


def test_a_token_cannot_remove_itself(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    response = remove_token(server, own)
    assert (response.status_code, response.json()["code"]) == (409, "own_token")
    other = create_token(server, "admin")
    assert request_status(server, other, f"tokens/{other['id'].upper()}", "DELETE") == (409, "own_token")
    assert request_status(server, other, f"tokens/{own['id']}", "DELETE") == (204, "")
    assert plain_http.get(f"{server.url}/api/v1/admin/stats", headers=server.headers).status_code == 401


def test_the_next_start_makes_the_servers_own_token_valid_again(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    other = create_token(server, "admin")
    assert request_status(server, other, f"tokens/{own['id']}", "DELETE") == (204, "")
    server.terminate()
    server.start()
    assert [each["name"] for each in server.get("tokens").json()] == ["admin.token", "a script"]


def test_a_token_from_the_environment_is_an_admins_without_expiry(
    serve: Callable[..., ServerProcess], server: ServerProcess
) -> None:
    """Also if it existed before with another role or an expiry."""
    token = create_token(server, expires_in="1d")
    serve(SHM_ADMIN_TOKEN=token["token"])
    assert request_status(server, token, "tokens") == (200, "")
    token_in_list = {each["id"]: each for each in server.get("tokens").json()}[token["id"]]
    assert (token_in_list["name"], token_in_list["role"], token_in_list["expires_at"]) == (
        "SHM_ADMIN_TOKEN",
        "admin",
        None,
    )


def test_the_day_of_a_tokens_last_use_is_written_once_a_day(server: ServerProcess, database: str) -> None:
    token = create_token(server)
    select_row_version = "SELECT xmin::text FROM tokens WHERE id = %s"
    select_used_on = "SELECT last_used_on FROM tokens WHERE id = %s"
    with admin_cursor(database) as cursor:
        assert fetch_value(cursor, select_used_on, token["id"]) is None
        for days_ago in (None, 1):
            cursor.execute("UPDATE tokens SET last_used_on = current_date - %s::integer", (days_ago,))
            assert request_status(server, token) == (200, "")
            wait_for(
                lambda: fetch_value(cursor, select_used_on, token["id"]) == datetime.now(UTC).date(),
                "the day of its use",
            )
            row_version = fetch_value(cursor, select_row_version, token["id"])
            for _ in range(20):
                assert request_status(server, token) == (200, "")
            assert fetch_value(cursor, select_row_version, token["id"]) == row_version
    token_in_list = {each["id"]: each for each in server.get("tokens").json()}[token["id"]]
    assert token_in_list["last_used_on"] == datetime.now(UTC).date().isoformat()


def test_a_token_works_while_its_use_cannot_be_written(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_DB_PATIENCE="1s")
    first, second = create_token(server), create_token(server)
    with superuser_cursor(database) as cursor:
        cursor.execute("BEGIN; SELECT FROM tokens FOR UPDATE")
        for _ in range(10):
            assert request_status(server, first) == (200, "")
        cursor.execute("ROLLBACK")
        make_read_only(cursor)
        for _ in range(10):
            assert request_status(server, second) == (200, "")
        wait_for(lambda: "last use could not be written" in server.log, "the log message")
        assert request_status(server, second) == (200, "")
        assert fetch_value(cursor, "SELECT last_used_on FROM tokens WHERE id = %s", second["id"]) is None
    assert "Traceback" not in server.log


def test_the_number_of_tokens_is_limited(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_TOKENS="3")
    first, _ = create_token(server), create_token(server)
    body = {"name": "one more", "role": "viewer"}
    response = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers)
    assert (response.status_code, response.json()["code"]) == (409, "too_many_tokens")
    assert "SHM_MAX_TOKENS" in response.json()["detail"]
    remove_token(server, first)
    create_token(server)


def test_pages_of_tokens_have_no_gap_and_no_duplicate(server: ServerProcess) -> None:
    tokens = [create_token(server, name=f"script {number}")["name"] for number in range(6)]
    seen: list[str] = []
    path: str | None = "/api/v1/admin/tokens?limit=3"
    while path:
        response = plain_http.get(f"{server.url}{path}", headers=server.headers)
        assert len(response.json()) <= 3
        seen += [token["name"] for token in response.json()]
        link = response.links.get("next", {}).get("url")
        path = link and response.url.join(link).raw_path.decode()
    assert seen == [*reversed(tokens), "admin.token"]


@pytest.mark.parametrize("query", ["limit=0", "after=x", "name=x"])
def test_an_invalid_query_is_refused(shared_server: ServerProcess, query: str) -> None:
    assert (
        plain_http.get(f"{shared_server.url}/api/v1/admin/tokens?{query}", headers=shared_server.headers).status_code
        == 400
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "in_detail"),
    [
        (b"", 400, "bad_json", "name"),
        (b"name=x&role=viewer", 400, "bad_json", "name"),
        (b'{"name":"\xff","role":"viewer"}', 400, "bad_json", "UTF-8"),
        (b'{"name":"\\ud800","role":"viewer"}', 400, "bad_json", "UTF-8"),
        (b"[]", 400, "bad_field", "object"),
        (b'{"role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"x"}', 400, "bad_field", "role"),
        (b'{"name":"x","role":"viewer","expires":"1d"}', 400, "bad_field", "expires"),
        (b'{"name":"x","role":"owner"}', 400, "bad_field", "viewer"),
        (b'{"name":"x","role":"ADMIN"}', 400, "bad_field", "role"),
        (b'{"name":5,"role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"","role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"  ","role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"a\\u0000","role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"a\\u202e","role":"viewer"}', 400, "bad_field", "name"),
        (b'{"name":"%s","role":"viewer"}' % (b"x" * (MAX_NAME_LENGTH + 1)), 400, "bad_field", "100"),
        (b'{"name":"SHM_ADMIN_TOKEN","role":"viewer"}', 400, "bad_field", "SHM_ADMIN_TOKEN"),
        (b'{"name":"admin.token","role":"admin"}', 400, "bad_field", "admin.token"),
        (b'{"name":"x","role":"viewer","expires_in":"soon"}', 400, "bad_field", "expires_in"),
        (b'{"name":"x","role":"viewer","expires_in":"0d"}', 400, "bad_field", "expires_in"),
        (b'{"name":"x","role":"viewer","expires_in":90}', 400, "bad_field", "expires_in"),
        (b'{"name":"x","role":"viewer"}' + b" " * 65_536, 413, "body_too_large", "65536"),
    ],
)
def test_an_invalid_body_is_explained_and_creates_no_token(
    shared_server: ServerProcess, body: bytes, status: int, code: str, in_detail: str
) -> None:
    before = shared_server.get("tokens?limit=1000").json()
    response = plain_http.post(f"{shared_server.url}/api/v1/admin/tokens", content=body, headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert in_detail in response.json()["detail"]
    assert response.json()["detail"].isprintable()
    assert [each["id"] for each in shared_server.get("tokens?limit=1000").json()] == [each["id"] for each in before]
