"""A session of the original's web page and SDKs: each recorded request gets an answer of the original's shape."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import execute
from tests.support.github_api import GitHubApi, github_api
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.responses import problem
from tests.support.server_process import ServerProcess

SESSION = json.loads((Path(__file__).parents[1] / "wire/original-web-page.json").read_text(encoding="utf-8"))
NESTED = b'{"x": ' + 200_000 * b"[" + 200_000 * b"]" + b', "stargazers_count": 3}'
TYPES = {str: "string", int: "number", float: "number", bool: "boolean", dict: "object", list: "array"}


@pytest.fixture(scope="module")
def github() -> Iterator[GitHubApi]:
    """A stand-in for GitHub's API."""
    with github_api() as api:
        yield api


@pytest.fixture(scope="module")
def server(postgres: str, github: GitHubApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an install that has the metrics of the recorded SDKs."""
    with module_server(
        postgres, tmp_path_factory.mktemp("session"), SHM_GITHUB_API=f"{github.url}/", GITHUB_TOKEN="ghp_test"
    ) as (server, _):
        yield server


def send(server: ServerProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    """A request with the bearer token, which is the only difference from the recorded one."""
    content = None if body is None else json.dumps(body).encode()
    return plain_http.request(method, f"{server.url}{path}", content=content, headers=server.headers)


def assert_shape(answer: Any, shape: Any, where: str) -> None:
    """An answer has all members of the original's answer, with the same types."""
    if isinstance(shape, str):
        assert ("null" if answer is None else TYPES[type(answer)]) == shape, where
    elif isinstance(shape, dict):
        names = answer if "*" in shape else shape
        for name in names:
            assert_shape(answer[name], shape.get("*", shape.get(name)), f"{where}.{name}")
        assert names, where
    elif shape and isinstance(shape[0], dict):
        for item in answer:
            assert_shape(item, shape[0], f"{where}[]")
        assert answer, where
    else:
        assert {"null" if item is None else TYPES[type(item)] for item in answer} == set(shape), where


def test_a_session_of_the_original_gets_answers_of_its_shape(server: ServerProcess, github: GitHubApi) -> None:
    github.answers["/repos/example/ledger"] = 200, {"stargazers_count": 4217, "message": None}
    install = Install(server.url, app_name="Café Ledger")
    registered, activated = install.register(), install.activate()
    sent = install.snapshot({"invoices_sent": 1284, "revenue_eur": 99120.55, "locale": "fr", "nested": {"a": [1, 2]}})
    assert (registered.status_code, registered.json()) == (201, {"status": "ok", "message": "Registered"})
    assert (activated.status_code, activated.json()) == (
        200,
        {"status": "active", "message": "Instance activated successfully"},
    )
    assert (sent.status_code, sent.json()) == (202, {"status": "ok", "message": "Snapshot received"})
    for request in SESSION["requests"]:
        response = send(server, request["method"], request["path"], request.get("body"))
        assert response.status_code == request["status"], (request["path"], response.text)
        if "answer" in request:
            assert_shape(response.json(), request["answer"], request["path"])
    application = send(server, "GET", "/api/v1/admin/applications/cafe-ledger").json()
    assert (application["stars"], application["logo_url"]) == (4217, "https://example.com/logo.png")
    assert github.requests == [("/repos/example/ledger", "Bearer ghp_test")]


def test_the_refusals_of_the_protocol_have_the_originals_statuses(server: ServerProcess) -> None:
    install = Install(server.url).enroll()
    body = install.snapshot_body({})
    assert problem(install.post("/v1/snapshot", body)) == (401, "missing_instance_id")
    assert problem(install.post("/v1/snapshot", body, {"X-Instance-ID": install.instance_id})) == (
        *(401, "missing_signature"),
    )
    forged = install.signed(body) | {"X-Signature": "0" * 128}
    assert problem(install.post("/v1/snapshot", body, forged)) == (403, "bad_signature")
    assert problem(Install(server.url).activate()) == (403, "unknown_instance")


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (404, {"message": "Not Found"}, (502, "github_refused")),
        (403, {"message": "rate limit"}, (502, "github_refused")),
        (200, {"message": "no number"}, (502, "github_refused")),
        (301, "http://elsewhere.invalid/repositories/1", (502, "github_refused")),
        (200, {"stargazers_count": 2**31}, (502, "github_refused")),
        (200, {"stargazers_count": -1}, (502, "github_refused")),
        (200, b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(NESTED), NESTED), (502, "github_refused")),
        (200, b"HTTP/1.0 200 OK\r\nX: " + 100_000 * b"x" + b"\r\n\r\n", (502, "github_unreachable")),
        (200, {"stargazers_count": 3, "x": 2**20 * "x"}, (502, "github_unreachable")),
    ],
)
def test_stars_stay_when_github_does_not_tell_them(
    server: ServerProcess, github: GitHubApi, status: int, answer: Any, expected: tuple[int, str]
) -> None:
    Install(server.url, app_name="Kept").enroll()
    path = "/api/v1/admin/applications/kept"
    send(server, "PUT", path, {"github_url": "https://github.com/example/kept.app/"})
    github.answers["/repos/example/kept.app"] = 301, f"{github.url}/repositories/9"
    github.answers["/repositories/9"] = 200, {"stargazers_count": 12}
    assert send(server, "POST", f"{path}/refresh-stars/").json()["stars"] == 12
    github.answers["/repos/example/kept.app"] = status, answer
    assert problem(send(server, "POST", f"{path}/refresh-stars")) == expected
    assert send(server, "GET", path).json()["stars"] == 12
    assert "Traceback" not in server.log


def test_stars_are_refreshed_every_hour(serve: Callable[..., ServerProcess], database: str, github: GitHubApi) -> None:
    """One that GitHub does not tell delays no other, and a fresh number is not read again."""
    execute(
        database,
        "INSERT INTO applications (slug, name, github_url, stars, stars_updated_at) VALUES "
        "('gone', 'Gone', 'https://github.com/example/gone', 7, NULL), "
        "('old', 'Old', 'https://github.com/example/old', 7, now() - interval '61 minutes'), "
        "('fresh', 'Fresh', 'https://github.com/example/fresh', 7, now() - interval '1 minute'), "
        "('other', 'Other', 'https://codeberg.org/example/other', 7, NULL), ('none', 'None', NULL, 7, NULL)",
    )
    github.answers["/repos/example/old"] = 200, {"stargazers_count": 12}
    server = serve(SHM_GITHUB_API=github.url)

    def stars() -> dict[str, int]:
        return {each["slug"]: each["stars"] for each in server.get("applications").json()}

    wait_for(lambda: stars() == {"gone": 7, "old": 12, "fresh": 7, "other": 7, "none": 7}, "the stars")
    own = [path for path, _ in github.requests if path.split("/")[-1] in stars()]
    assert own == ["/repos/example/gone", "/repos/example/old"]
    assert "could not refresh the stars of a repository" in server.log


def test_stars_require_a_repository_on_github(server: ServerProcess) -> None:
    Install(server.url, app_name="Elsewhere").enroll()
    path = "/api/v1/admin/applications/elsewhere"
    for url in ("", "https://example.com/a/b", "https://github.com/example", "https://github.com/example/.."):
        send(server, "PUT", path, {"github_url": url})
        assert problem(send(server, "POST", f"{path}/refresh-stars")) == (409, "no_repository")
    assert problem(send(server, "POST", "/api/v1/admin/applications/nobody/refresh-stars")) == (
        *(404, "no_such_application"),
    )


def test_an_unreachable_github_is_a_bad_gateway(server: ServerProcess, github: GitHubApi) -> None:
    Install(server.url, app_name="Cut").enroll()
    path = "/api/v1/admin/applications/cut"
    send(server, "PUT", path, {"github_url": "https://github.com/example/cut"})
    github.answers["/repos/example/cut"] = 999_999, {}  # no valid status line
    assert problem(send(server, "POST", f"{path}/refresh-stars")) == (502, "github_unreachable")
