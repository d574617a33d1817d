"""Generated requests to a real server: each is refused or stored exactly, and the server continues to work.

Each property has a short, deterministic run, and a long random one for `make test-long`.
"""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.hostile import json_fuzz, raw_http_fuzz
from tests.support.hostile.actions import body as body_of_an_action
from tests.support.hostile.backlogs import backlog, member
from tests.support.hostile.case import post, signed, snapshot
from tests.support.hostile.expected_json import can_be_stored, is_same, parse
from tests.support.installs import Install
from tests.support.raw_http import Answer, RawConnection
from tests.support.shared_servers import HonestInstalls, ServerWithDatabase

PATHS = ["/v1/snapshot", "/v1/snapshots", "/v1/register", "/v1/activate", "/v1/erase"]
REGISTRATION = (
    "instance_id",
    "public_key",
    "app_name",
    "app_version",
    "deployment_mode",
    "environment",
    "os_arch",
    "x",
)
METRICS = b'{"a": 1}'
MAX_DETAIL_LENGTH = 500
GRACE_S = 0.05  # enough for most responses; then the client half-closes and waits for the end

BASE_SETTINGS = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
)
EFFORTS = [
    pytest.param(settings(BASE_SETTINGS, max_examples=15, derandomize=True), id="short"),
    pytest.param(settings(BASE_SETTINGS, max_examples=10_000), id="long", marks=pytest.mark.long),
]
with_effort = pytest.mark.parametrize("effort", EFFORTS)


def check_response(answer: Answer | None) -> None:
    """Fails for a 5xx response, and for a refusal whose detail is too long or unprintable."""
    if answer is not None:
        assert answer.status < 500, answer
    if answer is not None and answer.status >= 400:
        assert len(answer.problem["detail"]) <= MAX_DETAIL_LENGTH
        assert answer.problem["detail"].isprintable()


def send(target: ServerWithDatabase, raw: bytes) -> Answer:
    """The response to a complete request. Fails if the server logs a fault."""
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(raw)
        answer = connection.answer()
    check_response(answer)
    assert answer is not None
    return answer


def send_all(target: ServerWithDatabase, raw: bytes) -> list[Answer]:
    """All responses to some bytes, which need not be a complete request."""
    answers = []
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(raw)
        while connection.has_more(GRACE_S) and (answer := connection.answer()) is not None:
            answers.append(answer)
        connection.half_close()
        answers += connection.answers()
    for answer in answers:
        check_response(answer)
    return answers


def valid_request(path: str, install: Install) -> bytes:
    """A valid signed request; for erase an outdated one, because a valid one would delete the install."""
    match path:
        case "/v1/snapshot":
            return snapshot(install, METRICS)
        case "/v1/snapshots":
            return backlog(install, [member(METRICS)])
        case "/v1/register":
            return signed(path, install, install.registration())
        case "/v1/activate":
            return signed(path, install, b'{"action":"activate"}')
        case _:
            return signed(path, install, body_of_an_action(install, "erase", timestamp="2024-01-01T00:00:00Z"))


@with_effort
def test_any_metrics_are_stored_exactly_or_refused(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install, effort: settings
) -> None:
    """Numbers keep their digits, and the other snapshot in the batch is stored."""
    with RawConnection(target.server.port) as hostile, RawConnection(target.server.port) as other:

        @effort
        @given(metrics=json_fuzz.metrics())
        def check(metrics: bytes) -> None:
            raw = snapshot(install, metrics)
            with target.assert_no_fault():
                hostile.send(raw)
                other.send(snapshot(honest_installs.second, b'{"a":1}'))
                answer = hostile.answer()
                assert other.verdict() == (202, None)
            check_response(answer)
            assert answer is not None
            try:
                sent = parse(raw.partition(b"\r\n\r\n")[2])["metrics"]
            except (ValueError, RecursionError):
                sent = None
            assert answer.status == (202 if can_be_stored(sent) else 400), answer
            if answer.status == 202:
                assert is_same(target.fetch_instance(install.instance_id)["metrics"], sent)

        check()


@with_effort
def test_a_snapshot_with_any_other_fields_is_stored_or_refused(
    target: ServerWithDatabase, install: Install, effort: settings
) -> None:
    with RawConnection(target.server.port) as hostile:

        @effort
        @given(others=json_fuzz.fields("app_version", "sequence", "timestamp", "instance_id", "x"))
        def check(others: dict[str, bytes]) -> None:
            more = b"".join(b',"%s":%s' % (name.encode(), text) for name, text in others.items())
            raw = snapshot(install, b'{"a":1}', more=more)
            with target.assert_no_fault():
                hostile.send(raw)
                answer = hostile.answer()
            check_response(answer)
            assert answer is not None
            assert answer.status in (202, 400, 403), answer
            if answer.status == 202:
                stored = target.fetch_instance(install.instance_id)
                assert stored["metrics"] == {"a": 1}
                version = json.loads(others.get("app_version", b"null"))
                assert version is None or stored["app_version"] == version.strip()

        check()


@with_effort
def test_any_registration_is_stored_exactly_or_refused(target: ServerWithDatabase, effort: settings) -> None:
    @effort
    @given(others=json_fuzz.fields(*REGISTRATION), is_signed=st.booleans())
    def check(others: dict[str, bytes], is_signed: bool) -> None:
        install = Install(target.server.url)
        valid = {name: json.dumps(value).encode() for name, value in json.loads(install.registration()).items()}
        body = b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), text) for name, text in (valid | others).items())
        raw = signed("/v1/register", install, body) if is_signed else post("/v1/register", body, {})
        answer = send(target, raw)
        assert answer.status in (201, 400, 403), answer
        if answer.status == 201:
            stored = target.fetch_instance(install.instance_id)
            for name in ("app_name", "app_version", "environment", "deployment_mode", "os_arch"):
                assert stored[name] == (json.loads((valid | others)[name]) or "").strip()
            assert re.fullmatch("[a-z0-9-]{1,100}", stored["app_slug"])
            assert stored["status"] == ("active" if is_signed else "pending")

    check()


@with_effort
def test_the_valid_members_of_any_backlog_are_stored(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install, effort: settings
) -> None:
    @effort
    @given(metrics=st.lists(json_fuzz.metrics(), max_size=5))
    def check(metrics: list[bytes]) -> None:
        raw = backlog(install, [member(text, ago_s) for ago_s, text in enumerate(metrics)])
        before = honest_installs.stored(install)
        answer = send(target, raw)
        try:
            expected = [can_be_stored(sent["metrics"]) for sent in parse(raw.partition(b"\r\n\r\n")[2])["snapshots"]]
        except (ValueError, RecursionError):
            return
        if answer.status == 202:
            assert [verdict["status"] == "stored" for verdict in json.loads(answer.body)["snapshots"]] == expected
        assert honest_installs.stored(install) - before == (sum(expected) if answer.status == 202 else 0)

    check()


@with_effort
def test_a_changed_request_stores_what_was_signed_or_nothing(
    target: ServerWithDatabase, honest_installs: HonestInstalls, install: Install, effort: settings
) -> None:
    """A valid request with changed bytes never stores anything else."""

    @effort
    @given(path=st.sampled_from(PATHS), data=st.data())
    def check(path: str, data: st.DataObject) -> None:
        send_all(target, data.draw(raw_http_fuzz.mutated(valid_request(path, install))))

    check()
    assert honest_installs.key_of(install) == install.public_key
    assert honest_installs.stored(install) == honest_installs.stored(install, METRICS.decode())


@with_effort
def test_an_unusual_request_gets_a_response(target: ServerWithDatabase, effort: settings) -> None:
    token = f"Authorization: {target.server.headers['Authorization']}"

    @effort
    @given(raw=raw_http_fuzz.odd_request(token))
    def check(raw: bytes) -> None:
        send(target, raw)

    check()


@with_effort
def test_nearly_valid_http_is_answered_or_closed(target: ServerWithDatabase, effort: settings) -> None:
    @effort
    @given(raw=raw_http_fuzz.almost_http() | raw_http_fuzz.random_bytes())
    def check(raw: bytes) -> None:
        send_all(target, raw)

    check()
