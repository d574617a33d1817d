"""The audit trail: each change by an admin has an entry with the token that made it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import plain_http
from tests.support.background_jobs import run_background_jobs
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm


@pytest.fixture(scope="module")
def running(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server and the DSN of its database."""
    with module_server(postgres, tmp_path_factory.mktemp("audit")) as started:
        yield started


def request(server: ServerProcess, method: str, path: str, **options: Any) -> httpx.Response:
    """A request below the admin API."""
    return plain_http.request(method, f"{server.url}/api/v1/admin/{path}", headers=server.headers, **options)


def newest(server: ServerProcess, count: int) -> list[tuple[str, str]]:
    """Actions and targets of the last changes, the last one first."""
    return [(entry["action"], entry["target"]) for entry in server.get(f"audit?limit={count}").json()]


def test_every_change_has_an_entry_with_its_token(running: tuple[ServerProcess, str]) -> None:
    server, _ = running
    own = next(token for token in server.get("tokens").json() if token["name"] == "admin.token")
    one, two = Install(server.url).enroll({"n": 1}), Install(server.url).enroll({"n": 1})
    ids = [install.instance_id[:8] for install in (one, two)]
    request(server, "POST", f"instances/{one.instance_id}/approve")
    request(server, "POST", f"instances/{one.instance_id}/revoke")
    request(server, "DELETE", f"instances/{two.instance_id}")
    assert newest(server, 3) == [("delete_instance", ids[1]), ("revoke_instance", ids[0]), ("approve_instance", ids[0])]
    request(server, "PUT", "applications/ledger", json={"overrides": {"n": {"label": "N"}, "m": None}})
    (entry,) = server.get("audit?limit=1").json()
    assert (entry["action"], entry["target"], entry["token_id"]) == ("update_application", "ledger", own["id"])
    assert entry["details"] == {"overrides": {"n": {"label": "N"}, "m": None}}
    created = request(server, "POST", "tokens", json={"name": "x", "role": "viewer"}).json()
    rotated = request(server, "POST", f"tokens/{created['id']}/rotate").json()
    request(server, "DELETE", f"tokens/{created['id']}")
    actions = ("delete_token", "rotate_token", "create_token")
    assert newest(server, 3) == [(action, created["id"]) for action in actions]
    request(server, "POST", "instances/bulk", json={"action": "revoke", "app": "ledger", "version": "0.1"})
    (entry,) = server.get("audit?limit=1").json()
    assert (entry["action"], entry["details"]) == ("revoke_instances", {"app": "ledger", "version": "0.1"})
    Install(server.url, app_name="Other").enroll()
    request(server, "POST", "applications/other/merge", json={"into": "ledger"})
    request(server, "DELETE", "applications/other")
    assert newest(server, 2) == [("delete_application", "other"), ("merge_application", "other")]
    text = server.get("audit?limit=1000").text
    for secret in (created["token"], rotated["token"], one.instance_id, two.instance_id):
        assert secret not in text


def test_what_changes_nothing_has_no_entry(running: tuple[ServerProcess, str]) -> None:
    server, _ = running
    Install(server.url, app_name="Same").enroll()
    before = newest(server, 1000)
    unknown = "00000000-0000-4000-8000-000000000000"
    for method, path, options in (
        ("DELETE", f"instances/{unknown}", {}),
        ("POST", f"instances/{unknown}/revoke", {}),
        ("PUT", "applications/nobody", {"json": {"github_url": ""}}),
        ("DELETE", "applications/nobody", {}),
        ("DELETE", "applications/same?dry_run=true", {}),
        ("POST", "instances/bulk", {"json": {"action": "delete", "app": "same", "dry_run": True}}),
        ("DELETE", f"tokens/{unknown}", {}),
        ("POST", f"tokens/{unknown}/rotate", {}),
        ("GET", "instances", {}),
    ):
        request(server, method, path, **options)
    assert newest(server, 1000) == before


def test_commands_are_recorded_without_a_token(running: tuple[ServerProcess, str]) -> None:
    server, dsn = running
    assert run_shm("token", "add", "by command", SHM_DB_DSN=dsn).returncode == 0
    (entry,) = server.get("audit?limit=1").json()
    assert (entry["action"], entry["token_id"], entry["details"]["name"]) == ("create_token", None, "by command")


def test_pages_are_complete_and_for_admins_only(running: tuple[ServerProcess, str]) -> None:
    server, _ = running
    for number in range(5):
        request(server, "POST", "tokens", json={"name": f"t{number}", "role": "viewer"})
    entries = server.get("audit?limit=1000").json()
    assert entries == sorted(entries, key=lambda entry: str(entry["at"]), reverse=True)
    whole = [entry["id"] for entry in entries]
    seen: list[str] = []
    url: str | None = f"{server.url}/api/v1/admin/audit?limit=2"
    while url:
        page = plain_http.get(url, headers=server.headers)
        seen += [entry["id"] for entry in page.json()]
        link = page.links.get("next", {}).get("url")
        url = None if link is None else str(page.url.join(link))
    assert seen == whole
    viewer = request(server, "POST", "tokens", json={"name": "viewer", "role": "viewer"}).json()["token"]
    for path in ("audit", "bulk-changes"):
        refused = plain_http.get(f"{server.url}/api/v1/admin/{path}", headers={"Authorization": f"Bearer {viewer}"})
        assert (refused.status_code, refused.json()["code"]) == (403, "role_too_small")
    for after in ("x", "-1", "99999999999999999999", "1.5"):
        assert request(server, "GET", f"audit?after={after}").json()["code"] == "bad_after"


def test_entries_are_kept_for_a_year(database: str, serve: Any) -> None:
    with run_background_jobs(database) as background:
        server = serve()
        for name in ("old", "young"):
            request(server, "POST", "tokens", json={"name": name, "role": "viewer"}).raise_for_status()
        with admin_cursor(database) as cursor:
            cursor.execute("UPDATE audit SET at = at - interval '366 days' WHERE details ->> 'name' = 'old'")
            cursor.execute("UPDATE audit SET at = at - interval '364 days' WHERE details ->> 'name' = 'young'")
        background.run("delete old audit entries")
        assert [entry["details"]["name"] for entry in server.get("audit").json()] == ["young"]
