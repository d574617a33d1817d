"""Installs that wait for approval, as all servers of a database count them, and their reports afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shm_sdk import Client, Result
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.installs import Install
from tests.support.parameters import long_after
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

WIRE = Path(__file__).parent.parent / "wire"
FULL = {"SHM_RATELIMIT_ENABLED": "true", "SHM_MAX_NEW_INSTALLS": "1"}  # after the first install


def request(server: ServerProcess, method: str, path: str, **arguments: Any) -> None:
    """Sends a request of the admin, which has to succeed."""
    url = f"{server.url}/api/v1/admin/{path}"
    plain_http.request(method, url, headers=server.headers, timeout=60, **arguments).raise_for_status()


def test_every_server_counts_the_installs_that_wait(serve: Callable[..., ServerProcess]) -> None:
    """After each change of any of them, whichever server made it."""
    servers = [serve(SHM_ACTIVATION="manual") for _ in range(2)]
    first, second = servers
    installs = [Install(first.url, app_name=name) for name in ("One", "One", "One", "One", "One", "Two", "Two")]
    for install in installs:
        assert install.register().status_code == 201
        assert install.activate().json()["status"] == "pending"
    approved, revoked, deleted, erased, selected, *moved = installs

    def assert_pending(one: int, two: int, *, is_gauge_read: bool = False) -> None:
        for server in servers:
            counts = [server.get("stats").json()["pending_instances"]]
            lists = [len(server.get(f"instances?status=pending&app={app}").json()) for app in ("one", "two")]
            assert (counts, lists) == ([one + two], [one, two])

            def is_sampled(server: ServerProcess = server) -> bool:
                return sample_value(scrape(server), "shm_installs", status="pending") == one + two

            if is_gauge_read:  # it is sampled in intervals
                wait_for(is_sampled, f"the gauge {one + two}")

    assert_pending(5, 2, is_gauge_read=True)
    request(second, "POST", f"instances/{approved.instance_id}/approve")
    assert approved.snapshot({"n": 1}).status_code == 202
    request(first, "POST", f"instances/{revoked.instance_id}/revoke")
    assert_pending(3, 2)
    request(second, "DELETE", f"instances/{deleted.instance_id}")
    assert act(erased, "erase").status_code == 200
    assert_pending(1, 2, is_gauge_read=True)
    request(first, "POST", "instances/bulk", json={"action": "approve", "instance_ids": [selected.instance_id]})
    wait_for(lambda: selected.snapshot({"n": 1}).status_code == 202, "the approval")
    request(second, "POST", f"instances/{moved[0].instance_id}/approve")
    assert moved[0].snapshot({"n": 1}).status_code == 202
    assert_pending(0, 1)
    request(first, "POST", "applications/two/merge", json={"into": "one"})
    wait_for(lambda: len(first.get("instances?status=pending&app=one").json()) == 1, "the merge")
    assert_pending(1, 0)
    request(second, "POST", f"instances/{moved[1].instance_id}/approve")
    assert moved[1].snapshot({"n": 1}).status_code == 202
    assert_pending(0, 0, is_gauge_read=True)


def test_the_sdk_reports_after_an_approval_without_a_restart(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = serve(**FULL)
    Install(server.url).enroll({"n": 1})
    telemetry = Client(server_url=server.url, app_name="Ledger", app_version="1.4.2", data_dir=tmp_path)
    assert telemetry.report_now().result is Result.PENDING
    (waiting,) = server.get("instances?status=pending").json()
    request(server, "POST", f"instances/{waiting['instance_id']}/approve")
    assert telemetry.report_now().result is Result.SENT
    telemetry.stop()
    assert server.get("instances?status=pending").json() == []


@pytest.mark.parametrize("client", long_after(1, ["go", "node"]))
def test_the_official_clients_report_after_an_approval_without_a_restart(
    serve: Callable[..., ServerProcess], client: str
) -> None:
    """They register and activate at their start only, and send snapshots whatever the activation said."""
    server = serve(**FULL, SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d")
    Install(server.url).enroll({"n": 1})
    register, activate, snapshot = json.loads((WIRE / f"official-{client}-client.json").read_text(encoding="utf-8"))[
        "requests"
    ]

    def replay(recorded: dict[str, Any]) -> httpx.Response:
        headers = {name: value for name, value in recorded["headers"].items() if name.lower() != "content-length"}
        return plain_http.post(f"{server.url}{recorded['path']}", content=recorded["body"].encode(), headers=headers)

    assert replay(register).status_code == 201
    assert replay(activate).json()["status"] == "pending"
    assert problem(replay(snapshot)) == (403, "not_approved")
    instance_id = json.loads(snapshot["body"])["instance_id"]
    request(server, "POST", f"instances/{instance_id}/approve")
    assert replay(snapshot).status_code == 202
    assert server.get(f"instances/{instance_id}").json()["status"] == "active"
