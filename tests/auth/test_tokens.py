"""Tokens: who may read and who may change, for how long, and that nobody finds one anywhere."""

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
from tests.support.databases import admin_cursor
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

NOBODY = "c77af682-9aa4-412e-904a-c307d3a8a9c2"
FIELDS = {"id", "name", "role", "created_at", "expires_at", "last_used_on"}
TIMED_OUT = 1008  # the close code of a feed whose token has ended
READ_ONLY = """
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = ON', current_database());
    END $$;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'shm'
"""


def address(pattern: str) -> str:
    """An address that a route takes."""
    path = re.sub(r"\(\?P<(instance|token)_id>.*?\{12\}\)", NOBODY, pattern)
    return re.sub(r"\(\?P<(slug|app)>.*?\)", "ledger", path)


WRITES = sorted(
    (method.upper(), address(pattern))
    for pattern, handler in ROUTES
    for method in handler.operations
    if method not in READ_METHODS
)


def made(server: ServerProcess, role: str = "viewer", **more: Any) -> dict[str, Any]:
    """A new token, as the admin is answered."""
    said = {"name": "a script", "role": role} | more
    response = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=said, headers=server.headers)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def bearing(token: dict[str, Any]) -> dict[str, str]:
    """What a request with that token carries."""
    return {"Authorization": f"Bearer {token['token']}"}


def asked(server: ServerProcess, token: dict[str, Any], path: str = "stats", method: str = "GET") -> tuple[int, str]:
    """The status, and a refusal's code, of a request with that token."""
    response = plain_http.request(method, f"{server.url}/api/v1/admin/{path}", headers=bearing(token))
    return response.status_code, response.json()["code"] if response.status_code >= 400 else ""


def removed(server: ServerProcess, token: dict[str, Any]) -> httpx.Response:
    """What the admin is answered who removes that token."""
    return plain_http.delete(f"{server.url}/api/v1/admin/tokens/{token['id']}", headers=server.headers)


def one(cursor: psycopg2.extensions.cursor, sql: str, *parameters: object) -> Any:
    """The one value that is asked for."""
    cursor.execute(sql, parameters)
    (value,) = cursor.fetchone() or (None,)
    return value


@pytest.fixture(scope="module")
def viewer(shared_server: ServerProcess) -> dict[str, Any]:
    """A viewer's token of the session's server."""
    return made(shared_server)


def test_there_are_addresses_that_change_something() -> None:
    assert ("DELETE", f"/api/v1/admin/tokens/{NOBODY}") in WRITES
    assert ("POST", f"/api/v1/admin/instances/{NOBODY}/approve") in WRITES


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_viewer_changes_nothing_anywhere(
    shared_server: ServerProcess, viewer: dict[str, Any], method: str, path: str
) -> None:
    answers = [
        plain_http.request(method, f"{shared_server.url}{path}", headers=headers, json={"name": "x", "role": "admin"})
        for headers in (bearing(viewer), {})
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (403, "role_too_small"),
        (401, "missing_token"),
    ]


def test_a_viewer_reads_what_there_is_but_no_tokens(shared_server: ServerProcess, viewer: dict[str, Any]) -> None:
    assert asked(shared_server, viewer, "instances") == (200, "")
    assert asked(shared_server, viewer, "tokens") == (403, "role_too_small")


def test_a_handler_that_lets_a_viewer_change_something_is_refused() -> None:
    class Careless(Handler):
        @operation("anything", Role.VIEWER)
        async def put(self) -> None:
            """Changes something."""

    class Careful(Handler):
        @operation("anything", Role.ADMIN)
        async def put(self) -> None:
            """Changes something."""

    with pytest.raises(ConfigurationError, match=r"Careless\.put lets others than admins change something"):
        validate_operations("/careless", Careless)
    validate_operations("/careful", Careful)


def test_a_token_is_shown_once_and_is_nowhere_else(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_LOG_LEVEL="debug")
    token = made(server, "admin", name="Grafana – büro", expires_in="90d")
    assert token.keys() == FIELDS | {"token"}
    assert (token["name"], token["role"], token["last_used_on"]) == ("Grafana – büro", "admin", None)
    created, expires = (datetime.fromisoformat(token[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=90)
    assert asked(server, token) == (200, "")
    listed = server.get("tokens")
    assert [each.keys() for each in listed.json()] == [FIELDS] * 2
    rows = "\n".join(rows_as_text(database))
    for secret in (token["token"], server.admin_token):
        assert hashlib.sha256(secret.encode()).hexdigest() in rows
        assert hashlib.sha256(secret.encode()).hexdigest() not in listed.text
        for place in (rows, listed.text, server.log):
            assert secret not in place


def test_the_server_s_own_token_is_listed_like_any_other_and_works_on(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    assert (own["name"], own["role"], own["expires_at"]) == ("admin.token", "admin", None)
    assert len(server.get("tokens").json()) == 1


def test_a_token_that_has_ended_is_refused_like_one_that_nobody_knows(server: ServerProcess, database: str) -> None:
    token = made(server, expires_in="1s")
    wait_for(lambda: asked(server, token) == (401, "bad_token"), "the token's end")
    endless = made(server)
    assert endless["expires_at"] is None
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE tokens SET expires_at = now() WHERE id = %s", (endless["id"],))
    assert asked(server, endless) == (401, "bad_token")
    assert {each["id"] for each in server.get("tokens").json()} >= {token["id"], endless["id"]}


def test_a_token_that_was_removed_is_none_at_once_in_every_server(serve: Callable[..., ServerProcess]) -> None:
    first, second = serve(), serve()
    token = made(first)
    for server in (first, second):
        assert asked(server, token) == (200, "")
    response = removed(second, token)
    assert (response.status_code, response.content) == (204, b"")
    for server in (first, second):
        assert asked(server, token) == (401, "bad_token")
        assert removed(server, token).json()["code"] == "no_such_token"


async def test_an_open_feed_ends_with_its_token(serve: Callable[..., ServerProcess]) -> None:
    first, second = serve(), serve()
    gone, ended = made(first), made(first, expires_in="3s")
    async with (
        subscribe(second) as kept,
        subscribe(second, headers=bearing(gone)) as one_subscriber,
        subscribe(second, headers=bearing(ended)) as other_subscriber,
    ):
        await asyncio.to_thread(removed, first, gone)
        assert await one_subscriber.closed() == await other_subscriber.closed() == TIMED_OUT
        assert (await kept.message())["type"] == "hello"


def test_nobody_removes_the_token_that_they_ask_with(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    refused = removed(server, own)
    assert (refused.status_code, refused.json()["code"]) == (409, "own_token")
    other = made(server, "admin")
    assert asked(server, other, f"tokens/{other['id'].upper()}", "DELETE") == (409, "own_token")
    assert asked(server, other, f"tokens/{own['id']}", "DELETE") == (204, "")
    assert plain_http.get(f"{server.url}/api/v1/admin/stats", headers=server.headers).status_code == 401


def test_the_next_start_makes_the_server_s_own_token_valid_again(server: ServerProcess) -> None:
    (own,) = server.get("tokens").json()
    other = made(server, "admin")
    assert asked(server, other, f"tokens/{own['id']}", "DELETE") == (204, "")
    server.terminate()
    server.start()
    assert [each["name"] for each in server.get("tokens").json()] == ["admin.token", "a script"]


def test_a_token_from_the_environment_is_a_lasting_admin_token(
    serve: Callable[..., ServerProcess], server: ServerProcess
) -> None:
    """A token of the environment is an admin s without an end whatever it was."""
    token = made(server, expires_in="1d")
    serve(SHM_ADMIN_TOKEN=token["token"])
    assert asked(server, token, "tokens") == (200, "")
    shown = {each["id"]: each for each in server.get("tokens").json()}[token["id"]]
    assert (shown["name"], shown["role"], shown["expires_at"]) == ("SHM_ADMIN_TOKEN", "admin", None)


def test_of_a_token_s_use_the_day_is_known_and_written_once(server: ServerProcess, database: str) -> None:
    token = made(server)
    version = "SELECT xmin::text FROM tokens WHERE id = %s"
    used_on = "SELECT last_used_on FROM tokens WHERE id = %s"
    with admin_cursor(database) as cursor:
        assert one(cursor, used_on, token["id"]) is None
        for days_ago in (None, 1):
            cursor.execute("UPDATE tokens SET last_used_on = current_date - %s::integer", (days_ago,))
            assert asked(server, token) == (200, "")
            wait_for(lambda: one(cursor, used_on, token["id"]) == datetime.now(UTC).date(), "the day of its use")
            written = one(cursor, version, token["id"])
            for _ in range(20):
                assert asked(server, token) == (200, "")
            assert one(cursor, version, token["id"]) == written
    shown = {each["id"]: each for each in server.get("tokens").json()}[token["id"]]
    assert shown["last_used_on"] == datetime.now(UTC).date().isoformat()


def test_a_token_works_where_its_use_cannot_be_written(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_DB_PATIENCE="1s")
    first, second = made(server), made(server)
    with admin_cursor(database) as cursor:
        cursor.execute("BEGIN; SELECT FROM tokens FOR UPDATE")
        for _ in range(10):
            assert asked(server, first) == (200, "")
        cursor.execute("ROLLBACK")
        cursor.execute(READ_ONLY)
        for _ in range(10):
            assert asked(server, second) == (200, "")
        wait_for(lambda: "last use could not be written" in server.log, "a word about it")
        assert asked(server, second) == (200, "")
        assert one(cursor, "SELECT last_used_on FROM tokens WHERE id = %s", second["id"]) is None
    assert "Traceback" not in server.log


def test_there_are_no_more_tokens_than_may_be(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_TOKENS="3")
    first, _ = made(server), made(server)
    body = {"name": "one more", "role": "viewer"}
    refused = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tokens")
    assert "SHM_MAX_TOKENS" in refused.json()["detail"]
    removed(server, first)
    made(server)


def test_pages_of_tokens_follow_each_other_without_a_gap_or_a_repeat(server: ServerProcess) -> None:
    tokens = [made(server, name=f"script {number}")["name"] for number in range(6)]
    seen: list[str] = []
    path: str | None = "/api/v1/admin/tokens?limit=3"
    while path:
        response = plain_http.get(f"{server.url}{path}", headers=server.headers)
        assert len(response.json()) <= 3
        seen += [token["name"] for token in response.json()]
        path = response.links.get("next", {}).get("url")
    assert seen == [*reversed(tokens), "admin.token"]


@pytest.mark.parametrize("query", ["limit=0", "after=x", "name=x"])
def test_a_query_that_means_nothing_is_refused(shared_server: ServerProcess, query: str) -> None:
    assert (
        plain_http.get(f"{shared_server.url}/api/v1/admin/tokens?{query}", headers=shared_server.headers).status_code
        == 400
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
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
def test_an_invalid_body_is_explained_and_makes_no_token(
    shared_server: ServerProcess, body: bytes, status: int, code: str, named: str
) -> None:
    """A body that cannot be taken is told what is wrong and makes no token."""
    before = shared_server.get("tokens?limit=1000").json()
    response = plain_http.post(f"{shared_server.url}/api/v1/admin/tokens", content=body, headers=shared_server.headers)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert named in response.json()["detail"]
    assert response.json()["detail"].isprintable()
    assert [each["id"] for each in shared_server.get("tokens?limit=1000").json()] == [each["id"] for each in before]
