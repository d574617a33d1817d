"""Hundreds of enrolments at once, over real sockets: each request gets its own right answer."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from nacl.signing import SigningKey

from shm.core.releases import version_rank
from shm.db.advisory_locks import Lock
from shm.ingest.enrolment import MAX_MOVES
from tests.support import plain_http
from tests.support.background_jobs import run_background_jobs
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.oracle import assert_matches_oracle
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

pytestmark = pytest.mark.cluster

ORDINARY_INSTALLS = 60  # ordinary installs beside those of each other kind
SOME = 8
ACTIVATION = b'{"action":"activate"}'

Answer = tuple[int, str | None]


@dataclass(frozen=True)
class Sent:
    """A request and the answers that are right, one of which is to come."""

    path: str
    body: bytes
    headers: dict[str, str]
    expected: Sequence[Answer]


def send_at_once(server: ServerProcess, database: str, requests: Sequence[Sent]) -> list[Answer]:
    """Sends all while no writer can write, so that they are written together. Returns the answers in order."""
    with ExitStack() as stack, admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])
        connections = [stack.enter_context(RawConnection(server.port)) for _ in requests]
        for connection, request in zip(connections, requests, strict=True):
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            length = f"Host: shm.test\r\nContent-Length: {len(request.body)}\r\n"
            assert connection.send(f"POST {request.path} HTTP/1.1\r\n{length}{head}\r\n".encode() + request.body)
        assert not connections[0].has_more(0.5)
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])
        answers = [connection.verdict() for connection in connections]
    assert [answer for answer in answers if answer is None] == []
    for request, answer in zip(requests, answers, strict=True):
        assert answer in request.expected, (request, answer)
    return [answer for answer in answers if answer is not None]


def registration(install: Install, *expected: Answer, **changes: object) -> Sent:
    return Sent("/v1/register", install.registration(**changes), {}, expected)


def activation(install: Install, *expected: Answer, body: bytes = ACTIVATION, key: SigningKey | None = None) -> Sent:
    signer = install if key is None else Install(install.url, instance_id=install.instance_id, key=key)
    return Sent("/v1/activate", body, signer.signed(body), expected)


def test_hundreds_of_enrolments_at_once_get_their_own_answers(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    with run_background_jobs(database) as jobs:
        server = serve(SHM_MAX_CONNECTIONS_PER_ADDRESS="2000")
        new = [Install(server.url, app_name=f"App {number % 3}") for number in range(ORDINARY_INSTALLS)]
        twice = [Install(server.url) for _ in range(SOME)]
        known, revoked, erased = ([Install(server.url).enroll({"n": 1}) for _ in range(SOME)] for _ in range(3))
        for each in revoked:
            url = f"{server.url}/api/v1/admin/instances/{each.instance_id}/revoke"
            assert plain_http.post(url, headers=server.headers).status_code == 200
        for each in erased:
            assert act(each, "erase").status_code == 200
        thieves = [Install(server.url, instance_id=each.instance_id) for each in (*known, *erased)]
        created, again, conflict = (201, None), (200, None), (409, "key_conflict")
        answers = send_at_once(
            server,
            database,
            [
                *(registration(each, created) for each in new),
                *(registration(each, created, again) for each in (*twice, *twice)),
                *(registration(each, again, app_version="2.0") for each in known),
                *(registration(each, (403, "unknown_instance")) for each in revoked),
                *(registration(each, conflict) for each in thieves),
                *(registration(each, (403, "signed_before_erasure")) for each in erased),
                *(registration(each, (400, "bad_public_key"), public_key="00") for each in twice),
            ],
        )
        assert Counter(answers)[created] == ORDINARY_INSTALLS + SOME
        staged = select_column(database, "SELECT staged ->> 'app_version' FROM instances WHERE staged IS NOT NULL")
        assert Counter(staged) == {"1.4.2": SOME, "2.0": SOME}
        assert {each.register_signed().status_code for each in erased} == {201}

        active, forged, stamp = (200, None), (403, "bad_signature"), datetime.now(UTC).isoformat()
        timed = b'{"action":"activate","timestamp":"%s"}' % stamp.encode()  # the same bytes for all of them
        unknown = [Install(server.url) for _ in range(SOME)]
        answers = send_at_once(
            server,
            database,
            [
                *(activation(each, active) for each in new),
                *(activation(each, active, body=timed) for each in twice),
                *(activation(each, active) for each in (*known, *known)),
                *(activation(each, forged, key=SigningKey.generate()) for each in new[:SOME]),
                *(activation(each, (403, "unknown_instance")) for each in (*unknown, *revoked)),
                *(activation(each, (403, "signed_before_erasure")) for each in erased),
            ],
        )
        assert Counter(answers)[active] == ORDINARY_INSTALLS + 3 * SOME
        replays = [activation(each, (403, "replayed"), body=timed) for each in twice]
        send_at_once(server, database, [*replays, *(activation(each, active, body=timed) for each in erased)])
        assert {item["app_version"] for item in server.get("instances?limit=1000&version=2.0").json()} == {"2.0"}
        assert len(server.get("instances?limit=1000&version=2.0").json()) == SOME
        assert len(server.get("instances?limit=1000&status=active").json()) == ORDINARY_INSTALLS + 3 * SOME
        assert {each["slug"] for each in server.get("applications").json()} == {"app-0", "app-1", "app-2", "ledger"}
        jobs.run()
        assert jobs.differences() == {}
        assert_matches_oracle(server, database)


def test_a_version_that_an_older_release_staged_gets_its_rank(server: ServerProcess, database: str) -> None:
    """That release computed the rank at the activation, and did not store it."""
    install = Install(server.url).enroll({"n": 1})
    assert install.register(app_version="10.0").status_code == 200
    execute(database, "UPDATE instances SET staged = staged - 'version_rank'")
    assert install.activate().status_code == 200
    (rank,) = select_column(database, "SELECT version_rank FROM instances")
    assert rank == version_rank("10.0")


def test_installs_that_change_their_application_together_create_it(server: ServerProcess, database: str) -> None:
    installs = [Install(server.url, app_name=name).enroll({"n": 1}) for name in ("One", "Two") * MAX_MOVES]
    for install in installs:
        assert install.register(app_name="Three").status_code == 200
    send_at_once(server, database, [activation(install, (200, None)) for install in installs])
    moves = select_column(database, "SELECT count(*) FROM instances GROUP BY xmin::text")
    assert max(moves) <= MAX_MOVES, "in one transaction"
    assert "three" in {each["slug"] for each in server.get("applications").json()}
    assert {item["app_slug"] for item in server.get("instances").json()} == {"three"}
    assert_matches_oracle(server, database)


def test_of_a_batch_beyond_the_hourly_limit_the_rest_needs_approval(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_NEW_INSTALLS="5", SHM_MAX_NEW_INSTALLS_PER_ADDRESS="10")
    installs = [Install(server.url) for _ in range(14)]
    either = (201, None), (429, "rate_limited")
    answers = send_at_once(server, database, [registration(each, *either) for each in installs])
    assert Counter(answers) == {either[0]: 10, either[1]: 4}, "the limit of the address"
    pending = [each for each, answer in zip(installs, answers, strict=True) if answer == either[0]]
    send_at_once(server, database, [activation(each, (200, None)) for each in pending])
    statuses = Counter(item["status"] for item in server.get("instances").json())
    assert statuses == {"active": 5, "pending": 5}, "the limit of the server"
    assert_matches_oracle(server, database)


def test_of_a_batch_beyond_the_limit_of_new_applications_no_more_are_added(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    """Neither by new installs, which wait, nor by known ones, which stay in their application."""
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_NEW_APPLICATIONS="4", SHM_RATELIMIT_REGISTER_BURST="1000")
    known = [Install(server.url).enroll({"n": 1}) for _ in range(SOME)]  # the first of the four applications
    for number, install in enumerate(known):
        assert install.register(app_name=f"Renamed {number}").status_code == 200
    new = [Install(server.url, app_name=f"New {number % 10}") for number in range(2 * SOME)]
    assert {install.register().status_code for install in new} == {201}
    send_at_once(server, database, [activation(install, (200, None)) for install in (*new, *known)])
    slugs = {each["slug"] for each in server.get("applications").json()}
    assert len(slugs) == 4
    items = {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}
    for install in new:
        item = items[install.instance_id]
        assert item["status"] == ("active" if item["app_slug"] in slugs else "pending")
        assert item["app_name"] == install.app_name
    for install in known:
        item = items[install.instance_id]
        assert item["status"] == "active"
        assert item["app_slug"] in slugs
        assert (item["app_slug"] == "ledger") == (item["app_name"] == "Ledger")
    assert_matches_oracle(server, database)

    execute(database, "UPDATE applications SET created_at = created_at - interval '2 hours'")
    waiting = [install for install in new if items[install.instance_id]["status"] == "pending"]
    staying = [install for install in known if items[install.instance_id]["app_slug"] == "ledger"]
    assert len(staying) >= SOME - 3
    for number, install in enumerate(staying):
        assert install.register(app_name=f"Renamed {number % 3}").status_code == 200
    send_at_once(server, database, [activation(install, (200, None)) for install in (*waiting, *staying)])
    added = {each["slug"] for each in server.get("applications").json()} - slugs
    assert added <= {"renamed-0", "renamed-1", "renamed-2"}, "an install that waits adds none"
    assert not server.get("instances?limit=1000&app=ledger").json()
    assert_matches_oracle(server, database)
