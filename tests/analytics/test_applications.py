"""Slugs and names of applications: every endpoint resolves them to the same application, or to none."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from shm.core import slugs
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.parameters import long_after
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

HASH_LIKE = "my-app-deadbeef"  # a name that looks like a slug with a hash, so its slug differs
NON_LATIN = "北京"
SLUG_LIKE = slugs.make_slug(NON_LATIN)  # the slug of NON_LATIN, and the name of another application
PATHS = ("", "/kpis", "/versions", "/lifecycle", "/breakdown?by=version")


@pytest.fixture(scope="module")
def named_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an install of each application, and one of an application that has not been created yet."""
    with module_server(postgres, tmp_path_factory.mktemp("named")) as (server, _):
        for number, name in enumerate([HASH_LIKE, NON_LATIN, SLUG_LIKE], 1):
            Install(server.url, app_name=name).enroll({"n": number})
        Install(server.url, app_name="Later-deadbeef").register()
        yield server


def request(server: ServerProcess, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    """A request below `/api/v1/admin/`."""
    return plain_http.request(method, f"{server.url}/api/v1/admin/{path}", headers=server.headers, **options)


@pytest.mark.parametrize("path", long_after(2, PATHS))
def test_a_path_requires_the_slug(named_server: ServerProcess, path: str) -> None:
    response = request(named_server, f"applications/{HASH_LIKE}{path}")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_application")
    for name in (HASH_LIKE, NON_LATIN, SLUG_LIKE):
        slug = slugs.make_slug(name)
        body = named_server.get(f"applications/{slug}{path}").json()
        assert slug in (body.get("app"), body.get("slug"))


def test_a_change_requires_the_slug(named_server: ServerProcess) -> None:
    change = {"github_url": "https://github.com/example/app"}
    assert request(named_server, f"applications/{HASH_LIKE}", "PUT", json=change).status_code == 404
    assert (
        request(named_server, f"applications/{slugs.make_slug(HASH_LIKE)}", "PUT", json=change).json()["name"]
        == HASH_LIKE
    )


@pytest.mark.parametrize(
    ("app", "name"),
    [
        (HASH_LIKE, HASH_LIKE),
        ("My App DEADBEEF", HASH_LIKE),
        (slugs.make_slug(HASH_LIKE), HASH_LIKE),
        (NON_LATIN, NON_LATIN),
        (SLUG_LIKE, NON_LATIN),
        (slugs.make_slug(SLUG_LIKE), SLUG_LIKE),
    ],
)
def test_a_query_accepts_slug_or_name_and_prefers_the_slug(named_server: ServerProcess, app: str, name: str) -> None:
    values = {HASH_LIKE: 1, NON_LATIN: 2, SLUG_LIKE: 3}
    assert named_server.get(f"metrics/{app}").json()["metrics"]["n"][-1] == values[name]
    assert [item["app_name"] for item in named_server.get(f"instances?app={app}").json()] == [name]
    assert [item["app_name"] for item in named_server.get(f"instances?app={app}&sort=metrics.n&order=asc").json()] == [
        name
    ]
    lines = named_server.get(f"export?app={app}&format=jsonl").text.splitlines()
    assert [json.loads(line)["app_name"] for line in lines] == [name]


@pytest.mark.parametrize(("app", "name"), [(HASH_LIKE, HASH_LIKE), (SLUG_LIKE, NON_LATIN), (NON_LATIN, NON_LATIN)])
async def test_the_feed_accepts_slug_or_name(named_server: ServerProcess, app: str, name: str) -> None:
    async with subscribe(named_server, f"?app={quote(app)}&since=0") as subscriber:
        await subscriber.until("kpis")
        assert [instance["app_name"] for instance in subscriber.instances.values()] == [name]


def test_instances_of_an_application_without_a_row_are_found(named_server: ServerProcess) -> None:
    for app in ("Later-deadbeef", slugs.make_slug("Later-deadbeef")):
        assert [item["status"] for item in named_server.get(f"instances?app={app}").json()] == ["pending"]
    assert request(named_server, "metrics/Later-deadbeef").status_code == 404
