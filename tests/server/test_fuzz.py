"""What nobody thought of, sent to a real server: it is refused or kept as it was sent, and the server goes on.

Each promise has a short form, which is the is_same on every machine, and a long one by chance, for `make test-long`.
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
from tests.support.hostile.expected_json import can_be_kept, is_same, parse
from tests.support.installs import Install
from tests.support.raw_http import Answer, RawConnection
from tests.support.targets import Neighbours, Target

PATHS = ["/v1/snapshot", "/v1/snapshots", "/v1/register", "/v1/activate", "/v1/erase"]
REGISTERED = ("instance_id", "public_key", "app_name", "app_version", "deployment_mode", "environment", "os_arch", "x")
METRICS = b'{"a": 1}'
LONGEST_DETAIL = 500
GRACE_S = 0.05  # in which a whole request is answered mostly; then the client closes its side, and waits for the end

UNHURRIED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
)
EFFORTS = [
    pytest.param(settings(UNHURRIED, max_examples=120, derandomize=True), id="short"),
    pytest.param(settings(UNHURRIED, max_examples=10_000), id="long", marks=pytest.mark.long),
]
with_effort = pytest.mark.parametrize("effort", EFFORTS)


def hold_in_shape(answer: Answer | None) -> None:
    """An answer is none of a fault, and a refusal is a short problem."""
    if answer is not None:
        assert answer.status < 500, answer
    if answer is not None and answer.status >= 400:
        assert len(answer.problem["detail"]) <= LONGEST_DETAIL
        assert answer.problem["detail"].isprintable()


def answered(target: Target, raw: bytes) -> Answer:
    """What a whole request is answered, by a server that is not harmed by it."""
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(raw)
        answer = connection.answer()
    hold_in_shape(answer)
    assert answer is not None
    return answer


def told(target: Target, raw: bytes) -> list[Answer]:
    """All that is answered to some bytes, which may be no whole request."""
    answers = []
    with target.assert_no_fault(), RawConnection(target.server.port) as connection:
        connection.send(raw)
        while connection.has_more(GRACE_S) and (answer := connection.answer()) is not None:
            answers.append(answer)
        connection.half_close()
        answers += connection.answers()
    for answer in answers:
        hold_in_shape(answer)
    return answers


def good(path: str, install: Install) -> bytes:
    """A whole request, signed, that is in order; but for erase, which would end the install."""
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
    target: Target, neighbours: Neighbours, install: Install, effort: settings
) -> None:
    """Any metrics are kept digit for digit or refused and the neighbour is stored."""
    with RawConnection(target.server.port) as hostile, RawConnection(target.server.port) as beside:

        @effort
        @given(metrics=json_fuzz.metrics())
        def promise(metrics: bytes) -> None:
            raw = snapshot(install, metrics)
            with target.assert_no_fault():
                hostile.send(raw)
                beside.send(snapshot(neighbours.second, b'{"a":1}'))
                answer = hostile.answer()
                assert beside.verdict() == (202, None)
            hold_in_shape(answer)
            assert answer is not None
            try:
                sent = parse(raw.partition(b"\r\n\r\n")[2])["metrics"]
            except (ValueError, RecursionError):
                sent = None
            assert answer.status == (202 if can_be_kept(sent) else 400), answer
            if answer.status == 202:
                assert is_same(target.fetch_instance(install.instance_id)["metrics"], sent)

        promise()


@with_effort
def test_a_snapshot_with_anything_in_its_other_fields_is_kept_or_refused(
    target: Target, install: Install, effort: settings
) -> None:
    with RawConnection(target.server.port) as hostile:

        @effort
        @given(others=json_fuzz.fields("app_version", "sequence", "timestamp", "instance_id", "x"))
        def promise(others: dict[str, bytes]) -> None:
            more = b"".join(b',"%s":%s' % (name.encode(), text) for name, text in others.items())
            raw = snapshot(install, b'{"a":1}', more=more)
            with target.assert_no_fault():
                hostile.send(raw)
                answer = hostile.answer()
            hold_in_shape(answer)
            assert answer is not None
            assert answer.status in (202, 400, 403), answer
            if answer.status == 202:
                shown = target.fetch_instance(install.instance_id)
                assert shown["metrics"] == {"a": 1}
                version = json.loads(others.get("app_version", b"null"))
                assert version is None or shown["app_version"] == version.strip()

        promise()


@with_effort
def test_any_registration_is_kept_as_it_was_sent_or_refused(target: Target, effort: settings) -> None:
    @effort
    @given(others=json_fuzz.fields(*REGISTERED), proven=st.booleans())
    def promise(others: dict[str, bytes], proven: bool) -> None:
        install = Install(target.server.url)
        good = {name: json.dumps(value).encode() for name, value in json.loads(install.registration()).items()}
        body = b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), text) for name, text in (good | others).items())
        raw = signed("/v1/register", install, body) if proven else post("/v1/register", body, {})
        answer = answered(target, raw)
        assert answer.status in (201, 400, 403), answer
        if answer.status == 201:
            shown = target.fetch_instance(install.instance_id)
            for name in ("app_name", "app_version", "environment", "deployment_mode", "os_arch"):
                assert shown[name] == (json.loads((good | others)[name]) or "").strip()
            assert re.fullmatch("[a-z0-9-]{1,100}", shown["app_slug"])
            assert shown["status"] == ("active" if proven else "pending")

    promise()


@with_effort
def test_a_backlog_of_anything_keeps_what_can_be_kept(
    target: Target, neighbours: Neighbours, install: Install, effort: settings
) -> None:
    @effort
    @given(metrics=st.lists(json_fuzz.metrics(), max_size=5))
    def promise(metrics: list[bytes]) -> None:
        raw = backlog(install, [member(text, ago_s) for ago_s, text in enumerate(metrics)])
        before = neighbours.stored(install)
        answer = answered(target, raw)
        try:
            kept = [can_be_kept(sent["metrics"]) for sent in parse(raw.partition(b"\r\n\r\n")[2])["snapshots"]]
        except (ValueError, RecursionError):
            return
        if answer.status == 202:
            assert [verdict["status"] == "stored" for verdict in json.loads(answer.body)["snapshots"]] == kept
        assert neighbours.stored(install) - before == (sum(kept) if answer.status == 202 else 0)

    promise()


@with_effort
def test_a_changed_request_stores_what_was_signed_or_nothing(
    target: Target, neighbours: Neighbours, install: Install, effort: settings
) -> None:
    """A good request with any bytes changed stores what was signed or nothing."""

    @effort
    @given(path=st.sampled_from(PATHS), data=st.data())
    def promise(path: str, data: st.DataObject) -> None:
        told(target, data.draw(raw_http_fuzz.mutated(good(path, install))))

    promise()
    assert neighbours.key_of(install) == install.public_key
    assert neighbours.stored(install) == neighbours.stored(install, METRICS.decode())


@with_effort
def test_a_request_that_nobody_would_send_is_answered(target: Target, effort: settings) -> None:
    token = f"Authorization: {target.server.headers['Authorization']}"

    @effort
    @given(raw=raw_http_fuzz.odd_request(token))
    def promise(raw: bytes) -> None:
        answered(target, raw)

    promise()


@with_effort
def test_whatever_is_nearly_http_is_answered_or_cut_off(target: Target, effort: settings) -> None:
    @effort
    @given(raw=raw_http_fuzz.nearly_http() | raw_http_fuzz.garbage())
    def promise(raw: bytes) -> None:
        told(target, raw)

    promise()
