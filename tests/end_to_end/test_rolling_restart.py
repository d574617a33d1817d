"""Two servers of three workers each behind a load balancer: one is restarted after the other under load."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored
from tests.support.nginx_balancer import NginxBalancer, needs_nginx
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act
from tests.support.tcp_balancer import TcpBalancer

SENDERS = 12
RETRY_PAUSE_S = 1.0  # half of what a server asks for that shuts down
WORKERS = {"SHM_WORKERS": "3", "SHM_DB_POOL": "2"}


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, True], ids=["terminated", "killed"])
@pytest.mark.parametrize("balancer", ["tcp", pytest.param("nginx", marks=needs_nginx)])
def test_a_rolling_restart_costs_each_install_at_most_one_retry(
    serve: Callable[..., ServerProcess], database: str, tmp_path: Path, balancer: str, is_killed: bool
) -> None:
    servers = [serve(**WORKERS) for _ in range(2)]
    with balance(balancer, servers, tmp_path) as running:
        load = Load([f"http://127.0.0.1:{running.port}"], SENDERS, rest_s=0.02, retry_pause_s=RETRY_PAUSE_S)
        with load.running():
            load.wait_for_more(300)
            for server in servers:
                if is_killed:
                    server.kill()
                else:
                    assert server.terminate() == 0
                load.wait_for_more(300)
                server.start()
                load.reset_progress()
                load.wait_for(load.has_progress, "new acknowledged snapshots")
    assert load.max_attempts <= 2, load.refusals
    assert_acknowledged_stored(load, servers, database)


def balance(
    name: str, servers: list[ServerProcess], folder: Path
) -> AbstractContextManager[TcpBalancer | NginxBalancer]:
    """A running load balancer before the servers."""
    ports = [server.port for server in servers]
    return (TcpBalancer(ports) if name == "tcp" else NginxBalancer(ports, folder)).running()


@pytest.mark.long
def test_revocations_and_erasures_hold_at_every_worker_of_the_other_server(
    serve: Callable[..., ServerProcess],
) -> None:
    one, other = (serve(**WORKERS) for _ in range(2))
    revoked, erased = Install(one.url).enroll({"n": 1}), Install(one.url).enroll({"n": 1})
    at_other = [Install(other.url, instance_id=each.instance_id, key=each.key) for each in (revoked, erased)]
    requests = 3 * int(WORKERS["SHM_WORKERS"])  # each has a connection of its own: all workers answer some
    for copy in at_other:
        assert {send_alone(copy, number) for number in range(requests)} == {202}
    address = f"{one.url}/api/v1/admin/instances/{revoked.instance_id}/revoke"
    plain_http.post(address, headers=one.headers).raise_for_status()
    assert act(erased, "erase").status_code == 200
    for copy in at_other:
        assert {send_alone(copy, number) for number in range(requests)} == {403}


def send_alone(install: Install, number: int) -> int:
    """Sends a snapshot on a new connection and returns the status."""
    body = install.snapshot_body({"n": number})
    with httpx.Client(timeout=60) as client:
        return client.post(f"{install.url}/v1/snapshot", content=body, headers=install.signed(body)).status_code
