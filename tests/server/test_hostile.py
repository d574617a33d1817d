"""Hostile requests to a real server: each gets its response, and other snapshots in the same batch are stored."""

from datetime import datetime

import pytest

from tests.support import plain_http
from tests.support.hostile import CASES, Case
from tests.support.hostile.case import STORED, snapshot
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.targets import HonestInstalls, Target

MAX_DETAIL_LENGTH = 500  # characters: a sentence and an abbreviated metric key
CLOSING_CODES = {"bad_http", "headers_too_large"}  # after these the start of the next request is unknown


def add_keys(target: Target, case: Case) -> None:
    """Sends the request for another install before, because snapshots with new keys take a transaction of their own."""
    other = Install(target.server.url)
    other.register()
    other.activate()
    with RawConnection(target.server.port) as connection:
        connection.send(case.raw(other))
        if case.waits:
            connection.half_close()
        connection.answer()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_gets_its_response_and_others_are_stored(
    target: Target, honest_installs: HonestInstalls, install: Install, case: Case
) -> None:
    port = target.server.port
    metrics = b'{"beside":"%s"}' % install.instance_id.encode()
    if STORED in case.expected:
        add_keys(target, case)
    with (
        target.assert_no_fault(),
        RawConnection(port) as earlier,
        RawConnection(port) as hostile,
        RawConnection(port) as same_batch,
    ):
        honest_installs.block_writer()
        try:
            earlier.send(snapshot(honest_installs.first, metrics))
            honest_installs.wait_until_batch_blocked()
            hostile.send(case.raw(install))
            if case.waits:
                hostile.half_close()
            same_batch.send(snapshot(honest_installs.second, metrics))
            with RawConnection(port) as later:  # once this is answered, the earlier requests have been read
                later.send(b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
                assert later.verdict() == (200, None)
        finally:
            honest_installs.release_writer()
        answer = hostile.answer()
        verdict = None if answer is None else answer.verdict
        assert verdict in case.expected, answer
        if answer is not None and answer.status >= 400:
            assert len(answer.problem["detail"]) <= MAX_DETAIL_LENGTH
            assert answer.problem["detail"].isprintable()
            assert answer.problem["code"] not in CLOSING_CODES or answer.headers.get("connection") == "close"
        if answer is not None and answer.headers.get("connection") == "close":
            assert hostile.ended()
        assert earlier.verdict() == same_batch.verdict() == (202, None)
    assert honest_installs.stored(honest_installs.second, metrics.decode()) == 1
    assert honest_installs.key_of(install) == install.public_key
    assert honest_installs.stored(install) == (case.stores if verdict == (202, None) else 0)
    if verdict == (202, None) and case.stores and "backlog" not in case.name:  # a long queue is halved
        assert honest_installs.count_batches(metrics, install) == 1
    if verdict == (202, None):
        instance = target.fetch_instance(install.instance_id)
        assert case.shows is None or instance["metrics"] == case.shows
        assert case.at is None or datetime.fromisoformat(instance["snapshot_at"]) == case.at


INVALID_QUERIES = {
    "instances?status=" + "x" * 10_000: "bad_parameter",
    "instances?status=%1b%5b31m%0d%0a%e2%80%ae": "bad_parameter",
    "instances?status=%00": "bad_parameter",
    "instances?" + "x" * 10_000 + "=1": "unknown_parameter",
    "instances?%1b%5b31m%0d%0a%e2%80%ae=1": "unknown_parameter",
    "instances?" + "x" * 5_000 + "=1&" + "x" * 5_000 + "=1": "unknown_parameter",
    "instances?%1b%5b31m%0d%0a=1&%1b%5b31m%0d%0a=1": "unknown_parameter",
    "tokens?limit=0": "bad_parameter",
    "tokens?limit=1001": "bad_parameter",
    "tokens?limit=1e400": "bad_parameter",
    "tokens?limit=NaN": "bad_parameter",
    "tokens?limit=" + "9" * 5_000: "bad_parameter",
    "tokens?limit=%D9%A1": "bad_parameter",
    "instances?after=" + "x" * 10_000: "bad_after",
    "instances?after=9999-12-31T23:59:59-23:59_c77af682-9aa4-412e-904a-c307d3a8a9c2": "bad_after",
    "instances?after=2024-01-01T00:00:00Z_c77af682-9aa4-412e-904a-c307d3a8a9c%00": "bad_after",
    "instances?app=%ed%a0%80": "bad_parameter",
    "instances?q=%ff": "bad_parameter",
    "metrics/a%00b": "unstorable",
    "feed?since=-1": "bad_parameter",
    "feed?since=" + "9" * 30: "bad_parameter",
}


@pytest.mark.parametrize("query", INVALID_QUERIES, ids=lambda query: query[:60])
def test_an_invalid_query_is_refused_with_a_short_detail(target: Target, query: str) -> None:
    head = f"GET /api/v1/admin/{query} HTTP/1.1\r\nHost: shm.test\r\n"
    token = f"Authorization: {target.server.headers['Authorization']}\r\n\r\n"
    with target.assert_no_fault(), RawConnection(target.server.port) as reader:
        reader.send((head + token).encode())
        answer = reader.answer()
    assert answer is not None
    assert answer.verdict == (400, INVALID_QUERIES[query])
    assert len(answer.problem["detail"]) <= MAX_DETAIL_LENGTH
    assert answer.problem["detail"].isprintable()


@pytest.mark.parametrize(
    "body",
    [
        {"public_metrics": ["a\0b"]},
        {"overrides": {"a\0b": {}}},
        {"overrides": {"n": {"label": "\0"}}},
        {"overrides": {"n": {"unit": "a\0"}}},
        {"github_url": "https://shm.test/\0"},
    ],
    ids=str,
)
def test_unstorable_data_of_an_application_is_refused(target: Target, body: dict[str, object]) -> None:
    server = target.server
    url = f"{server.url}/api/v1/admin/applications/ledger"
    with target.assert_no_fault():
        answer = plain_http.put(url, json=body, headers=server.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_field")
