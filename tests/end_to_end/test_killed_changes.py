"""A server that is killed inside a change leaves nothing half done.

After its restart the change ends, or is as if never requested, and `shm check` finds no difference.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from nacl.signing import SigningKey

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import select_column
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm
from tests.support.signed_actions import action, backlog

SNAPSHOTS, KEYS = 90, 30  # of each install, so that a change takes many statements
INSTALLS = 4  # of an application
SETTINGS = {"SHM_RATELIMIT_ENABLED": "false"}
UNFINISHED = """
    SELECT (SELECT count(*) FROM bulk_changes WHERE finished_at IS NULL)
        + (SELECT count(*) FROM instances WHERE erasing_since IS NOT NULL)"""
ROLLED_UP = "SELECT NOT EXISTS (SELECT FROM snapshots WHERE cursor > (SELECT cursor FROM series_head))"

COUNTS = {
    "instances": "SELECT count(*) FROM instances WHERE instance_id = ANY(%s::uuid[])",
    "snapshots": "SELECT count(*) FROM snapshots WHERE instance_id = ANY(%s::uuid[])",
}

Answer = tuple[int, ...]


class Fleet:
    """The installs of one application, and another application beside it, on one server."""

    def __init__(self, server: ServerProcess, database: str, name: str) -> None:
        self.server, self.database = server, database
        self.slug, self.other_slug = name, f"{name}-other"
        self.installs = [Install(server.url, app_name=name) for _ in range(INSTALLS)]
        self.waiting = [Install(server.url, app_name=name) for _ in range(INSTALLS)]
        self.other = Install(server.url, app_name=self.other_slug).enroll({"k1": 1})
        self.new_key = SigningKey.generate()
        for install in self.installs:
            install.enroll({"k0": 0})
            now = datetime.now(UTC)
            members = [
                {
                    "timestamp": (now - timedelta(hours=hours)).isoformat(),
                    "metrics": {f"k{number}": hours for number in range(KEYS)},
                }
                for hours in range(SNAPSHOTS, 0, -1)
            ]
            assert backlog(install, members).status_code == 202
        for install in self.waiting:
            assert install.register().status_code == 201
        self.first = self.installs[0]

    def request(self, method: str, path: str, **body: Any) -> int:
        """A request of the admin."""
        url = f"{self.server.url}/api/v1/admin/{path}"
        content = body or None
        return plain_http.request(method, url, headers=self.server.headers, timeout=60, json=content).status_code

    def act(self, name: str, **more: Any) -> int:
        """A signed action of the first install."""
        body = action(self.first, name, **more)
        headers = self.first.signed(body) | {"X-New-Signature": self.new_key.sign(body).signature.hex()}
        return plain_http.post(f"{self.server.url}/v1/{name}", content=body, headers=headers, timeout=60).status_code

    def statuses(self) -> list[str]:
        """The statuses of the instances that have reported; those of removed ones are missing."""
        items = self.server.get(f"instances?app={self.slug}&limit=100").json()
        known = {item["instance_id"]: item["status"] for item in items}
        return [known[each.instance_id] for each in self.installs if each.instance_id in known]

    def count(self, table: str, installs: list[Install]) -> int:
        """The rows of these installs in a table."""
        ids = "{" + ",".join(install.instance_id for install in installs) + "}"
        counts = select_column(self.database, COUNTS[table], ids)
        return int(counts[0])


def approve(fleet: Fleet) -> int:
    return fleet.request("POST", "instances/bulk", action="approve", app=fleet.slug, status="pending")


def is_approved(fleet: Fleet) -> bool:
    ids = "{" + ",".join(install.instance_id for install in fleet.waiting) + "}"
    sql = "SELECT DISTINCT status FROM instances WHERE instance_id = ANY(%s::uuid[])"
    return select_column(fleet.database, sql, ids) == ["active"]


def revoke_by_filter(fleet: Fleet) -> int:
    return fleet.request("POST", "instances/bulk", action="revoke", app=fleet.slug, status="active")


def revoke(fleet: Fleet) -> int:
    return fleet.request("POST", f"instances/{fleet.first.instance_id}/revoke")


def delete_by_filter(fleet: Fleet) -> int:
    return fleet.request("POST", "instances/bulk", action="delete", app=fleet.slug, status="active")


def delete(fleet: Fleet) -> int:
    return fleet.request("DELETE", f"instances/{fleet.first.instance_id}")


def delete_application(fleet: Fleet) -> int:
    return fleet.request("DELETE", f"applications/{fleet.slug}")


def rename(fleet: Fleet) -> int:
    return fleet.request("PUT", f"applications/{fleet.slug}", name=f"New name of {fleet.slug}")


def is_renamed(fleet: Fleet) -> bool:
    name: str = fleet.server.get(f"applications/{fleet.slug}").json()["name"]
    return name == f"New name of {fleet.slug}" and fleet.statuses() == ["active"] * INSTALLS


def merge(fleet: Fleet) -> int:
    return fleet.request("POST", f"applications/{fleet.slug}/merge", into=fleet.other_slug)


def is_merged(fleet: Fleet) -> bool:
    sql = "SELECT count(*) FROM snapshots WHERE app_slug = %s"
    kpis = fleet.server.get(f"applications/{fleet.other_slug}/kpis").json()
    return (
        select_column(fleet.database, sql, fleet.slug) == [0]
        and select_column(fleet.database, sql, fleet.other_slug) == [INSTALLS * (SNAPSHOTS + 1) + 1]
        and kpis["instances"]["active"] == INSTALLS + 1
    )


def erase(fleet: Fleet) -> int:
    return fleet.act("erase")


def rotate(fleet: Fleet) -> int:
    """By the old key; by the new one if that is the key already."""
    status = fleet.act("rotate", new_public_key=fleet.new_key.verify_key.encode().hex())
    if status == 403:
        fleet.first.key = fleet.new_key
        status = fleet.act("rotate", new_public_key=fleet.new_key.verify_key.encode().hex())
    return status


def is_rotated(fleet: Fleet) -> bool:
    fleet.first.key = fleet.new_key
    return fleet.first.snapshot({"k1": 5}).status_code == 202


def are_removed(*, all_of_them: bool) -> Callable[[Fleet], bool]:
    """Whether of the installs nothing is left, of the first one or of all."""

    def is_done(fleet: Fleet) -> bool:
        installs = fleet.installs if all_of_them else fleet.installs[:1]
        left = [] if all_of_them else ["active"] * (INSTALLS - 1)
        statuses = [] if all_of_them else fleet.statuses()
        return statuses == left and all(fleet.count(table, installs) == 0 for table in COUNTS)

    return is_done


Change = Callable[[Fleet], int]
CHANGES: dict[str, tuple[Change, Callable[[Fleet], bool], Answer]] = {
    "approve by filter": (approve, is_approved, (202,)),
    "revoke": (revoke, lambda fleet: fleet.statuses() == ["revoked"] + ["active"] * (INSTALLS - 1), (200,)),
    "revoke by filter": (revoke_by_filter, lambda fleet: fleet.statuses() == ["revoked"] * INSTALLS, (202,)),
    "delete": (delete, are_removed(all_of_them=False), (204, 404)),
    "delete by filter": (delete_by_filter, are_removed(all_of_them=True), (202, 404)),
    "delete an application": (delete_application, are_removed(all_of_them=True), (202, 404)),
    "rename": (rename, is_renamed, (200,)),
    "merge": (merge, is_merged, (202, 404)),
    "erase": (erase, are_removed(all_of_them=False), (200, 403)),
    "rotate": (rotate, is_rotated, (200,)),
}


def seconds_of(change: Change, fleet: Fleet, expected: Answer) -> float:
    """Carries a change out without a kill, and measures it to the end of its background work."""
    started_at = time.monotonic()
    assert change(fleet) in expected
    wait_for(lambda: select_column(fleet.database, UNFINISHED) == [0], "the end of the change")
    return time.monotonic() - started_at


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_inside_a_change_leaves_nothing_half_done(
    serve: Callable[..., ServerProcess], database: str, name: str
) -> None:
    """At random moments of it. The client repeats a request that was not answered."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    by_chance = random.Random(seed)
    change, is_done, expected = CHANGES[name]
    server = serve(**SETTINGS)
    whole_s = seconds_of(change, fleet := Fleet(server, database, "calm"), expected)
    assert is_done(fleet)
    for number in range(4):
        fleet = Fleet(server, database, f"round-{number}")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(change, fleet)
            time.sleep(by_chance.uniform(0, whole_s))
            server.kill()
            server.start()
            try:
                is_answered = answer.result() in expected
            except httpx.TransportError:
                is_answered = False
        if not is_answered:
            assert change(fleet) in expected
        wait_for(lambda: select_column(database, UNFINISHED) == [0], "the end of the change")
        assert is_done(fleet), (number, is_answered)
        assert server.get("failed-removals").json() == []
        assert "Traceback" not in server.log
    wait_for(lambda: select_column(database, ROLLED_UP) == [True], "the rollup")
    checked = run_shm("check", SHM_DB_DSN=database)
    assert checked.returncode == 0, checked.stdout
