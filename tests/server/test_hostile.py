"""Hostile requests to a real server: each gets its response, and other snapshots in the same batch are stored."""

import random
from contextlib import ExitStack
from datetime import datetime

import pytest

from shm.ingest.group_commit import MIN_HALVED_QUEUE
from tests.support import plain_http
from tests.support.hostile import CASES, Case
from tests.support.hostile.case import STORED, Verdict, snapshot
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.shared_servers import HonestInstalls, ServerWithDatabase

MAX_DETAIL_LENGTH = 500  # characters: a sentence and an abbreviated metric key
CLOSING_CODES = {
    "bad_http",
    "headers_too_large",
    "url_too_long",
}  # after these the start of the next request is unknown


GROUP_SIZE = MIN_HALVED_QUEUE - 1  # so that one batch has all of them and the second honest snapshot
FORMS = [
    *(
        pytest.param(CASES[start : start + GROUP_SIZE], id=f"from {CASES[start].name}")
        for start in range(0, len(CASES), GROUP_SIZE)
    ),
    *(pytest.param((case,), id=f"only {case.name}", marks=pytest.mark.long) for case in CASES),
]


def enroll(target: ServerWithDatabase) -> Install:
    """A registered and active install without a stored snapshot."""
    install = Install(target.server.url)
    assert install.register().status_code == 201
    assert install.activate().status_code == 200
    return install


def send(connection: RawConnection, case: Case, install: Install) -> None:
    """Sends the request of a case."""
    connection.send(case.raw(install))
    if case.waits:
        connection.half_close()


def may_succeed(case: Case) -> bool:
    """Whether a response of the case is not a refusal."""
    return any(verdict is not None and verdict[0] < 400 for verdict in case.expected)


def add_keys(target: ServerWithDatabase, case: Case) -> None:
    """Sends the request for another install before, because snapshots with new keys take a transaction of their own."""
    with RawConnection(target.server.port) as connection:
        send(connection, case, enroll(target))
        connection.answer()


def check_answer(connection: RawConnection, case: Case) -> Verdict:
    """Reads the response to a case's request and checks it. Returns its verdict."""
    answer = connection.answer()
    verdict = None if answer is None else answer.verdict
    assert verdict in case.expected, (case.name, answer)
    if answer is not None and answer.status >= 400:
        assert len(answer.problem["detail"]) <= MAX_DETAIL_LENGTH, case.name
        assert answer.problem["detail"].isprintable(), case.name
        assert answer.problem["code"] not in CLOSING_CODES or answer.headers.get("connection") == "close", case.name
    if answer is not None and answer.headers.get("connection") == "close":
        assert connection.ended(), case.name
    return verdict


def check_stored(target: ServerWithDatabase, case: Case, install: Install) -> None:
    """Checks the instance after a case that is stored."""
    instance = target.fetch_instance(install.instance_id)
    assert case.shows is None or instance["metrics"] == case.shows, case.name
    assert case.at is None or datetime.fromisoformat(instance["snapshot_at"]) == case.at, case.name


@pytest.mark.parametrize("cases", FORMS)
def test_hostile_requests_get_their_responses_and_others_are_stored(
    target: ServerWithDatabase, honest_installs: HonestInstalls, cases: tuple[Case, ...]
) -> None:
    """The requests of a group are in one batch, if they are not refused before. The long form sends each alone."""
    refused = enroll(target)  # shared by the cases of which nothing is stored
    installs = {case.name: enroll(target) if may_succeed(case) else refused for case in cases}
    metrics = b'{"beside":%d}' % random.randrange(2**53)
    assert enroll(target).snapshot({"beside": 0}).status_code == 202
    for case in cases:
        if STORED in case.expected:
            add_keys(target, case)
    with ExitStack() as connections:
        connections.enter_context(target.assert_no_fault())
        port = target.server.port
        earlier, same_batch = (connections.enter_context(RawConnection(port)) for _ in range(2))
        hostile = {case.name: connections.enter_context(RawConnection(port)) for case in cases}
        honest_installs.block_writer()
        try:
            earlier.send(snapshot(honest_installs.first, metrics))
            honest_installs.wait_until_batch_blocked()
            for case in cases:
                send(hostile[case.name], case, installs[case.name])
            same_batch.send(snapshot(honest_installs.second, metrics))
            with RawConnection(port) as later:  # once this is answered, the earlier requests have been read
                later.send(b"GET /api/v1/healthcheck HTTP/1.1\r\nHost: shm.test\r\n\r\n")
                assert later.verdict() == (200, None)
        finally:
            honest_installs.release_writer()
        verdicts = {case.name: check_answer(hostile[case.name], case) for case in cases}
        assert earlier.verdict() == same_batch.verdict() == STORED
    assert honest_installs.stored(honest_installs.second, metrics.decode()) == 1
    assert honest_installs.stored(refused) == 0
    for case in cases:
        install, is_stored = installs[case.name], verdicts[case.name] == STORED
        assert honest_installs.key_of(install) == install.public_key, case.name
        assert honest_installs.stored(install) == (case.stores if is_stored else 0), case.name
        if is_stored:
            check_stored(target, case, install)
        if is_stored and case.stores and not any("backlog" in other.name for other in cases):  # a long queue is halved
            assert honest_installs.count_batches(metrics, install) == 1, case.name


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
    "instances?after=2024-01-01T00:00:00Z_c77af682-9aa4-412e-904a-c307d3a8a9c%00": "bad_parameter",
    "applications?after=%00": "bad_parameter",
    "metric-keys?app=a%00": "bad_parameter",
    "applications/ledger/breakdown?by=%00": "bad_parameter",
    "instances?sort=last_seen_at%0a": "bad_parameter",
    "instances?app=%ed%a0%80": "bad_parameter",
    "instances?q=%ff": "bad_parameter",
    "metrics/a%00b": "unstorable",
    "feed?since=-1": "bad_parameter",
    "feed?since=" + "9" * 30: "bad_parameter",
}


@pytest.mark.parametrize("query", INVALID_QUERIES, ids=lambda query: query[:60])
def test_an_invalid_query_is_refused_with_a_short_detail(target: ServerWithDatabase, query: str) -> None:
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
        {"github_url": "https://shm.test/\x85"},
        {"logo_url": "https://shm.test/\ufeff"},
        {"logo_url": "https://shm.test/\n"},
        {"github_url": "\n"},
        {"name": " "},
        {"name": "Ledger\n"},
        {"name": "\ufeffLedger"},
    ],
    ids=str,
)
def test_unstorable_data_of_an_application_is_refused(target: ServerWithDatabase, body: dict[str, object]) -> None:
    server = target.server
    url = f"{server.url}/api/v1/admin/applications/ledger"
    with target.assert_no_fault():
        answer = plain_http.put(url, json=body, headers=server.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_field")
