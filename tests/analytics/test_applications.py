"""An application's slug and its name: every endpoint finds the same application by them, or none."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from shm.core import slugs
from tests.support.databases import fresh_database
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

HASHED = "my-app-deadbeef"  # a name that looks like a slug with a hash, and so is none
FOREIGN = "北京"
TWIN = slugs.make_slug(FOREIGN)  # another application's name
PATHS = ("", "/kpis", "/versions", "/lifecycle", "/breakdown?by=version")


@pytest.fixture(scope="module")
def named(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an install of each application, and one of an application that has not been created yet."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("named") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            for number, name in enumerate([HASHED, FOREIGN, TWIN], 1):
                Install(server.url, app_name=name).enroll({"n": number})
            Install(server.url, app_name="Later-deadbeef").register()
            yield server
        finally:
            server.terminate()


def ask(server: ServerProcess, path: str, method: str = "GET", **more: Any) -> httpx.Response:
    """A request below `/api/v1/admin/`."""
    return httpx.request(method, f"{server.url}/api/v1/admin/{path}", headers=server.headers, timeout=30, **more)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_takes_the_slug_and_not_the_name(named: ServerProcess, path: str) -> None:
    found = ask(named, f"applications/{HASHED}{path}")
    assert (found.status_code, found.json()["code"]) == (404, "no_such_application")
    for name in (HASHED, FOREIGN, TWIN):
        slug = slugs.make_slug(name)
        body = named.get(f"applications/{slug}{path}").json()
        assert slug in (body.get("app"), body.get("slug"))


def test_a_change_takes_the_slug_and_not_the_name(named: ServerProcess) -> None:
    change = {"github_url": "https://github.com/example/app"}
    assert ask(named, f"applications/{HASHED}", "PUT", json=change).status_code == 404
    assert ask(named, f"applications/{slugs.make_slug(HASHED)}", "PUT", json=change).json()["name"] == HASHED


@pytest.mark.parametrize(
    ("app", "name"),
    [
        (HASHED, HASHED),
        ("My App DEADBEEF", HASHED),
        (slugs.make_slug(HASHED), HASHED),
        (FOREIGN, FOREIGN),
        (TWIN, FOREIGN),
        (slugs.make_slug(TWIN), TWIN),
    ],
)
def test_a_query_takes_the_slug_or_the_name_and_the_slug_first(named: ServerProcess, app: str, name: str) -> None:
    values = {HASHED: 1, FOREIGN: 2, TWIN: 3}
    assert named.get(f"metrics/{app}").json()["metrics"]["n"][-1] == values[name]
    assert [item["app_name"] for item in named.get(f"instances?app={app}").json()] == [name]
    assert [item["app_name"] for item in named.get(f"instances?app={app}&sort=metrics.n&order=asc").json()] == [name]
    lines = named.get(f"export?app={app}&format=jsonl").text.splitlines()
    assert [json.loads(line)["app_name"] for line in lines] == [name]


@pytest.mark.parametrize(("app", "name"), [(HASHED, HASHED), (TWIN, FOREIGN), (FOREIGN, FOREIGN)])
async def test_the_feed_takes_the_slug_or_the_name(named: ServerProcess, app: str, name: str) -> None:
    async with subscribe(named, f"?app={quote(app)}&since=0") as subscriber:
        await subscriber.until("kpis")
        assert [each["app_name"] for each in subscriber.instances.values()] == [name]


def test_instances_of_an_application_that_is_not_created_yet_are_found(named: ServerProcess) -> None:
    for app in ("Later-deadbeef", slugs.make_slug("Later-deadbeef")):
        assert [item["status"] for item in named.get(f"instances?app={app}").json()] == ["pending"]
    assert ask(named, "metrics/Later-deadbeef").status_code == 404
