"""The first digits of an instance's ID stand for it where they fit one instance only."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

ONE = "0aba5b1a-1111-4111-8111-111111111111"
TWINS = ("c77af682-9aa4-412e-904a-c307d3a8a9c2", "c77af682-9aa4-412e-9fff-c307d3a8a9c2")


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one instance of its own prefix and two that share theirs."""
    with module_server(postgres, tmp_path_factory.mktemp("ids")) as (server, _):
        for instance_id in (ONE, *TWINS):
            Install(server.url, instance_id=instance_id).enroll({"n": 1})
        yield server


def request(server: ServerProcess, path: str, method: str = "GET") -> httpx.Response:
    """A request below `instances/`."""
    return plain_http.request(method, f"{server.url}/api/v1/admin/instances/{path}", headers=server.headers)


@pytest.mark.parametrize(
    "text", ["0", "0aba5b1a", "0ABA5B1A-", "0aba5b1a-11", "0aba5b1a1111", ONE.replace("-", ""), ONE]
)
def test_an_unambiguous_prefix_finds_the_instance(server: ServerProcess, text: str) -> None:
    assert request(server, text).json()["instance_id"] == ONE
    assert len(request(server, f"{text}/snapshots").json()) == 1


@pytest.mark.parametrize("text", ["c", "c77af682", "c77af682-9aa4-412e-9"])
def test_an_ambiguous_prefix_is_refused_with_the_number(server: ServerProcess, text: str) -> None:
    for response in (request(server, text), request(server, f"{text}/snapshots")):
        assert (response.status_code, response.json()["code"]) == (409, "ambiguous_instance_id")
        assert "2 instances" in response.json()["detail"]


@pytest.mark.parametrize("text", ["0aba5b1b", "00000000-0000-4000-8000-000000000000", "f" * 32])
def test_a_prefix_of_no_instance_is_not_found(server: ServerProcess, text: str) -> None:
    assert request(server, text).json()["code"] == "no_such_instance"


@pytest.mark.parametrize("text", ["xyz", "0aba5b1a--1111", f"{ONE}0", "0" * 33])
def test_another_text_is_no_address(server: ServerProcess, text: str) -> None:
    assert request(server, text).json()["code"] == "no_such_address"


def test_a_change_requires_eight_digits_of_one_instance(server: ServerProcess) -> None:
    for method, suffix in (("POST", "/approve"), ("POST", "/revoke"), ("DELETE", "")):
        for text, code in (("0aba5b1", "short_instance_id"), ("c77af682", "ambiguous_instance_id")):
            assert request(server, text + suffix, method).json()["code"] == code
    revoked = request(server, "c77af682-9aa4-412e-904a/revoke", "POST").json()
    assert (revoked["instance_id"], revoked["status"], revoked["counted"]) == (TWINS[0], "revoked", False)
    assert request(server, "c77af682-9aa4-412e-9fff", "DELETE").status_code == 204
    assert request(server, "c77af682").json()["instance_id"] == TWINS[0]
