"""Rate limits of a server: sufficient for a shared address, and consumed only by their owner."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.raw_http import RawConnection
from tests.support.responses import problem
from tests.support.server_process import RATE_LIMITS, ServerProcess
from tests.support.signed_actions import rotate

OFFICE_INSTALLS = 50


@pytest.fixture
def limited_server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the default bursts."""
    return serve(**RATE_LIMITS)


def test_fifty_installs_behind_one_address_enroll_at_once(limited_server: ServerProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Install(limited_server.url).enroll({"n": 1}), range(OFFICE_INSTALLS)))
    assert limited_server.get("stats").json()["active_instances"] == OFFICE_INSTALLS


def test_an_address_over_its_limit_gets_429_with_retry_after(serve: Callable[..., ServerProcess]) -> None:
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_RATELIMIT_REGISTER_REQUESTS="6",
        SHM_RATELIMIT_REGISTER_PERIOD="1h",
        SHM_RATELIMIT_REGISTER_BURST="3",
    )
    responses = [Install(server.url).register() for _ in range(4)]
    assert [response.status_code for response in responses] == [201, 201, 201, 429]
    assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["2", "1", "0", "0"]
    assert {response.headers["X-RateLimit-Limit"] for response in responses} == {"3"}
    assert problem(responses[3]) == (429, "rate_limited")
    assert 0 < int(responses[3].headers["Retry-After"]) <= 600
    reset = datetime.fromtimestamp(int(responses[3].headers["X-RateLimit-Reset"]), UTC) - datetime.now(UTC)
    assert timedelta(minutes=20) < reset <= timedelta(minutes=30, seconds=1)
    other_address = plain_http.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9"))
    with other_address:
        body = Install(server.url).registration()
        assert other_address.post(f"{server.url}/v1/register", content=body).status_code == 201


def test_each_process_counts_budgets_for_itself(serve: Callable[..., ServerProcess]) -> None:
    """So with several processes an address has several budgets."""
    limits = {**RATE_LIMITS, "SHM_RATELIMIT_REGISTER_BURST": "2"}
    for server in (serve(**limits), serve(**limits)):
        assert [Install(server.url).register().status_code for _ in range(3)] == [201, 201, 429]


def test_the_rate_limit_of_an_install_does_not_affect_others(
    limited_server: ServerProcess,
) -> None:
    """An install over its limit gets 429 with Retry-After; another install does not."""
    install, other = Install(limited_server.url).enroll({"n": 0}), Install(limited_server.url).enroll({"n": 0})
    responses = [install.snapshot({"n": number}) for number in range(5)]
    assert [response.status_code for response in responses] == [202, 202, 202, 202, 429]
    assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["3", "2", "1", "0", "0"]
    assert problem(responses[4]) == (429, "rate_limited")
    assert 0 < int(responses[4].headers["Retry-After"]) <= 86_400
    assert other.snapshot({"n": 1}).status_code == 202


def test_only_an_install_itself_consumes_its_budget(limited_server: ServerProcess) -> None:
    victim = Install(limited_server.url).enroll({"n": 0})
    recorded = victim.snapshot_body({"n": 1})
    headers = victim.signed(recorded)
    assert victim.post("/v1/snapshot", recorded, headers).status_code == 202
    attacker = Install(limited_server.url, instance_id=victim.instance_id)
    for number in range(20):
        assert problem(attacker.snapshot({"n": number})) == (403, "bad_signature")
        assert victim.post("/v1/snapshot", recorded, headers).status_code == 202  # a replay
        assert problem(victim.snapshot("nonsense")) == (400, "bad_field")
    responses = [victim.snapshot({"n": number}).status_code for number in range(4)]
    assert responses == [202, 202, 202, 429]


def test_a_snapshot_over_the_rate_limit_is_not_stored(limited_server: ServerProcess) -> None:
    install = Install(limited_server.url).enroll({"n": 0})
    responses = [install.snapshot({"n": number}) for number in range(1, 10)]
    stored = [number for number, response in enumerate(responses, 1) if response.status_code == 202]
    assert stored == [1, 2, 3, 4]
    (item,) = limited_server.get("instances").json()
    assert item["metrics"] == {"n": 4}


def test_each_client_of_a_trusted_proxy_has_its_own_budget(serve: Callable[..., ServerProcess]) -> None:
    settings = {**RATE_LIMITS, "SHM_RATELIMIT_REGISTER_BURST": "2"}
    trusting, distrusting = serve(**settings, SHM_TRUSTED_PROXIES="127.0.0.0/8"), serve(**settings)

    def statuses(server: ServerProcess) -> list[int]:
        return [
            install.post("/v1/register", install.registration(), {"X-Forwarded-For": f"192.0.2.{number}"}).status_code
            for number, install in enumerate(Install(server.url) for _ in range(4))
        ]

    assert statuses(trusting) == [201] * 4
    assert statuses(distrusting) == [201, 201, 429, 429]
    assert distrusting.log.count("SHM_TRUSTED_PROXIES") == 1
    assert "SHM_TRUSTED_PROXIES" not in trusting.log


def test_an_address_that_guesses_tokens_is_banned_except_valid_ones(limited_server: ServerProcess) -> None:
    url = f"{limited_server.url}/api/v1/admin/stats"
    limited_server.get("stats")
    responses = [plain_http.get(url, headers={"Authorization": f"Bearer guess-{number}"}) for number in range(7)]
    assert [problem(response) for response in responses] == [(401, "bad_token")] * 5 + [(429, "too_many_guesses")] * 2
    assert 800 < int(responses[-1].headers["Retry-After"]) <= 900
    limited_server.get("stats")


def test_only_a_token_itself_consumes_its_budget(serve: Callable[..., ServerProcess]) -> None:
    server = serve(**RATE_LIMITS, SHM_RATELIMIT_ADMIN_BURST="3", SHM_RATELIMIT_ADMIN_REQUESTS="1")
    url = f"{server.url}/api/v1/admin/stats"
    for _ in range(10):
        assert problem(plain_http.get(url, headers={"Authorization": "Bearer bad"})) == (401, "bad_token")
    responses = [plain_http.get(url, headers=server.headers) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["2", "1", "0", "0"]


def test_rate_limits_can_be_switched_off(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"n": 0})
    responses = [install.snapshot({"n": number}) for number in range(20)]
    assert {response.status_code for response in responses} == {202}
    assert "X-RateLimit-Limit" not in responses[0].headers


def test_guesses_never_lock_out_a_valid_token(limited_server: ServerProcess) -> None:
    """A token that was never used works from a banned address, also while guesses arrive, and for a new token too."""
    url = f"{limited_server.url}/api/v1/admin"
    created = plain_http.post(f"{url}/tokens", headers=limited_server.headers, json={"name": "ci", "role": "viewer"})
    unused = {"Authorization": f"Bearer {created.json()['token']}"}

    def guess(number: int) -> tuple[int, str]:
        return problem(plain_http.get(f"{url}/stats", headers={"Authorization": f"Bearer guess-{number}"}))

    assert [guess(number) for number in range(7)][-2:] == [(429, "too_many_guesses")] * 2
    with ThreadPoolExecutor(8) as pool:
        guesses = pool.map(guess, range(100, 140))
        assert plain_http.get(f"{url}/stats", headers=unused).status_code == 200
        assert set(guesses) == {(429, "too_many_guesses")}
    created = plain_http.post(f"{url}/tokens", headers=limited_server.headers, json={"name": "new", "role": "viewer"})
    newer = {"Authorization": f"Bearer {created.json()['token']}"}
    assert plain_http.get(f"{url}/stats", headers=newer).status_code == 200
    plain_http.delete(f"{url}/tokens/{created.json()['id']}", headers=limited_server.headers).raise_for_status()
    assert problem(plain_http.get(f"{url}/stats", headers=newer)) == (401, "bad_token")


def test_bad_snapshots_over_the_budget_of_an_address_cost_hardly_anything(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    """Unknown installs, bad signatures and replays are refused; an install with a valid signature is still accepted.

    Also by another server, or the same one after a restart, which does not know its key yet.
    """
    server = serve(**RATE_LIMITS, SHM_RATELIMIT_FAILED_REQUESTS="1", SHM_RATELIMIT_FAILED_BURST="6")
    honest = Install(server.url).enroll({"n": 0})
    body = honest.snapshot_body({"n": 1})
    assert [honest.post("/v1/snapshot", body, honest.signed(body)).status_code for _ in range(3)] == [202] * 3
    unknown = Install(server.url)
    assert [problem(unknown.snapshot({"n": 1})) for _ in range(2)] == [(403, "unknown_instance")] * 2
    forger = Install(server.url, instance_id=honest.instance_id)
    assert [problem(forger.snapshot({"n": 1})) for _ in range(2)] == [(403, "bad_signature")] * 2

    def transactions() -> int:
        time.sleep(1.5)  # PostgreSQL reports them with a delay of up to a second
        with admin_cursor(database) as cursor:
            cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])  # type: ignore[index]  # there is one row

    before = transactions()
    with ThreadPoolExecutor(50) as pool:
        strangers = [pool.submit(Install(server.url).snapshot, {"n": 2}) for _ in range(100)]
        forged = [pool.submit(forger.snapshot, {"n": 1}) for _ in range(100)]
        for _ in range(100):
            assert problem(honest.post("/v1/snapshot", body, honest.signed(body))) == (429, "rate_limited")
        assert {problem(each.result()) for each in forged} == {(403, "bad_signature")}
        assert {problem(stranger.result()) for stranger in strangers} == {(429, "rate_limited")}
    assert transactions() - before < 200  # of the server's own work, and not of 300 requests
    assert honest.snapshot({"n": 2}).status_code == 202
    other = serve(**RATE_LIMITS, SHM_RATELIMIT_FAILED_REQUESTS="1", SHM_RATELIMIT_FAILED_BURST="6")
    for _ in range(6):
        assert problem(Install(other.url).snapshot({"n": 2})) == (403, "unknown_instance")
    assert problem(Install(other.url).snapshot({"n": 2})) == (429, "rate_limited")
    body = honest.snapshot_body({"n": 3})
    response = plain_http.post(f"{other.url}/v1/snapshot", content=body, headers=honest.signed(body))
    assert response.status_code == 202


def test_replays_at_once_do_not_exceed_the_budget_of_an_address(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve(**RATE_LIMITS, SHM_RATELIMIT_FAILED_REQUESTS="1", SHM_RATELIMIT_FAILED_BURST="2")
    install = Install(server.url).enroll({"n": 0})
    body = install.snapshot_body({"n": 1})
    assert [install.post("/v1/snapshot", body, install.signed(body)).status_code for _ in range(2)] == [202, 202]
    with ThreadPoolExecutor(8) as pool, admin_cursor(database) as cursor:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
        replays = [pool.submit(install.post, "/v1/snapshot", body, install.signed(body)) for _ in range(8)]
        wait_for(lambda: sum(replay.done() for replay in replays) == 7, "the replays beyond the budget")
        cursor.execute("ROLLBACK")
        assert sorted(replay.result().status_code for replay in replays) == [202] + [429] * 7


def test_a_key_that_another_server_changed_is_read_over_the_budget(serve: Callable[..., ServerProcess]) -> None:
    """An install that has rotated its key shares its address with a stranger who sends invalid snapshots."""
    limits = {**RATE_LIMITS, "SHM_RATELIMIT_FAILED_REQUESTS": "1", "SHM_RATELIMIT_FAILED_BURST": "6"}
    server, other = serve(**limits), serve(**limits)
    install = Install(other.url).enroll({"n": 0})  # the other server has cached its key
    for _ in range(6):
        assert problem(Install(other.url).snapshot({"n": 1})) == (403, "unknown_instance")
    assert problem(Install(other.url).snapshot({"n": 1})) == (429, "rate_limited")
    rotated = Install(other.url, instance_id=install.instance_id)
    assert rotate(install, rotated.key, server).status_code == 200
    assert rotated.snapshot({"n": 1}).status_code == 202
    assert problem(install.snapshot({"n": 2})) == (403, "bad_signature")


def test_requests_without_a_token_have_a_limit_by_address(serve: Callable[..., ServerProcess]) -> None:
    """Beyond it, valid tokens and installs are served, also a token that is used for the first time."""
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_RATELIMIT_UNAUTHENTICATED_REQUESTS="1",
        SHM_RATELIMIT_UNAUTHENTICATED_BURST="40",
    )
    health = f"{server.url}/api/v1/healthcheck"
    paths = [health, f"{server.url}/nowhere", f"{server.url}/badge/ledger/instances", f"{server.url}/v1/snapshot"]
    assert {plain_http.get(paths[-1]).status_code for _ in range(20)} == {405}
    served = 0
    while plain_http.get(health).status_code == 200:
        served += 1
    assert served > 10  # each request counts once
    refused = [plain_http.get(path) for path in paths]
    assert [problem(each) for each in refused] == [(429, "rate_limited")] * len(paths)
    assert {each.headers["Connection"] for each in refused} == {"close"}
    assert 0 < int(refused[0].headers["Retry-After"]) <= 60
    started_at = time.monotonic()
    assert problem(Install(server.url).snapshot({"n": 1})) == (403, "unknown_instance")
    assert problem(plain_http.post(f"{server.url}/v1/snapshot?a=b")) == (400, "unknown_parameter")
    assert time.monotonic() - started_at >= 1.0  # two delays
    wrong = {"Authorization": "Bearer wrong"}
    assert problem(plain_http.get(f"{server.url}/api/v1/admin/stats", headers=wrong)) == (401, "bad_token")
    assert server.get("stats").json()["total_instances"] == 0
    assert Install(server.url).enroll({"n": 1}).snapshot({"n": 2}).status_code == 202


def test_requests_after_a_refused_one_of_the_same_connection_are_dropped(serve: Callable[..., ServerProcess]) -> None:
    """Each would be delayed in turn, without an end of the server meanwhile, although the connection is closed."""
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_RATELIMIT_UNAUTHENTICATED_REQUESTS="1",
        SHM_RATELIMIT_UNAUTHENTICATED_BURST="10",
    )
    for is_read in (True, False):
        with RawConnection(server.port) as connection:
            connection.send(b"GET /nowhere HTTP/1.1\r\nHost: shm.test\r\n\r\n" * 300)
            if is_read:
                statuses = [answer.status for answer in connection.answers()]
                assert statuses == [404] * (len(statuses) - 1) + [429]
    assert server.terminate() == 0


def test_new_installs_of_an_address_have_a_limit(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_NEW_INSTALLS_PER_ADDRESS="3")
    known = [Install(server.url).enroll() for _ in range(3)]
    refused = Install(server.url).register()
    assert problem(refused) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 1_200
    assert {install.register().status_code for install in known} == {200}
    assert len(server.get("instances").json()) == 3


@pytest.mark.parametrize("trusted", [False, True])
def test_limits_of_addresses_spare_trusted_proxies(serve: Callable[..., ServerProcess], trusted: bool) -> None:
    """A proxy that names no client stands for all clients behind it."""
    server = serve(
        SHM_RATELIMIT_ENABLED="true",
        SHM_MAX_NEW_INSTALLS_PER_ADDRESS="2",
        SHM_RATELIMIT_REGISTER_BURST="4",
        SHM_RATELIMIT_UNAUTHENTICATED_REQUESTS="1",
        SHM_RATELIMIT_UNAUTHENTICATED_BURST="20",
        SHM_TRUSTED_PROXIES="127.0.0.0/8" if trusted else "",
    )
    statuses = [Install(server.url).register().status_code for _ in range(6)]
    assert statuses == ([201] * 6 if trusted else [201] * 2 + [429] * 4)
    statuses = [plain_http.get(f"{server.url}/nowhere").status_code for _ in range(21)]
    assert statuses[-1] == (404 if trusted else 429)


def test_the_bytes_that_an_address_stores_have_a_limit(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_BYTES_PER_ADDRESS="8k")
    first, second = Install(server.url).enroll(), Install(server.url).enroll()
    big = {f"key{number}": "x" * 60 for number in range(60)}
    assert [first.snapshot(big).status_code, second.snapshot(big).status_code] == [202, 202]
    third = second.snapshot(big)
    assert problem(third) == (429, "rate_limited")
    assert 0 < int(third.headers["Retry-After"]) <= 3_600


def test_beyond_the_limit_of_new_installs_approval_is_required(serve: Callable[..., ServerProcess]) -> None:
    """An install beyond the limit waits, and reports after its approval without a restart."""
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_NEW_INSTALLS="2")
    Install(server.url).enroll({"n": 1})
    unproven = Install(server.url)
    unproven.register()  # does not count
    Install(server.url).enroll({"n": 1})
    third = Install(server.url)
    assert third.register().status_code == 201
    assert third.activate().json()["status"] == "pending"
    assert problem(third.snapshot({"n": 1})) == (403, "not_approved")
    stats = server.get("stats").json()
    assert (stats["activation"], stats["pending_instances"], stats["unproven_instances"]) == ("manual", 1, 1)
    wait_for(lambda: sample_value(scrape(server), "shm_installs", status="pending") == 1, "the gauge")
    assert third.activate().json()["status"] == "pending"
    approve = f"{server.url}/api/v1/admin/instances/{third.instance_id}/approve"
    assert plain_http.post(approve, headers=server.headers).status_code == 200
    assert third.snapshot({"n": 1}).status_code == 202
    assert third.activate().json()["status"] == "active"
    assert server.get("stats").json()["active_instances"] == 3


def test_beyond_the_limit_of_new_applications_approval_is_required(serve: Callable[..., ServerProcess]) -> None:
    """Neither many installs nor one that changes its name over and over create applications without an end."""
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_MAX_NEW_APPLICATIONS="2")
    first = Install(server.url, app_name="Ledger").enroll({"n": 1})
    Install(server.url, app_name="Kiosk").enroll({"n": 1})
    third = Install(server.url, app_name="Third")
    assert third.register().status_code == 201
    assert third.activate().json()["status"] == "pending"
    assert problem(third.snapshot({"n": 1})) == (403, "not_approved")
    assert server.get("stats").json()["pending_instances"] == 1
    Install(server.url, app_name="Ledger").enroll({"n": 2})  # a known application has no such limit
    for number in range(3):
        first.app_name = f"Invented {number}"
        assert first.register().status_code == 200
        if number == 1:
            assert first.activate().json()["status"] == "active"
        assert first.snapshot({"n": 10 + number}).status_code == 202  # also as the first signed request
        shown = server.get(f"instances/{first.instance_id}").json()
        assert (shown["app_slug"], shown["app_name"], shown["metrics"]) == ("ledger", "Ledger", {"n": 10 + number})
    assert [app["slug"] for app in server.get("applications").json()] == ["kiosk", "ledger"]
    approve = f"{server.url}/api/v1/admin/instances/{third.instance_id}/approve"
    assert plain_http.post(approve, headers=server.headers).status_code == 200
    assert third.snapshot({"n": 1}).status_code == 202
    assert [app["slug"] for app in server.get("applications").json()] == ["kiosk", "ledger", "third"]
    approved = Install(server.url, app_name="Fourth")
    assert approved.register().status_code == 201
    approve = f"{server.url}/api/v1/admin/instances/{approved.instance_id}/approve"
    assert plain_http.post(approve, headers=server.headers).status_code == 200  # before its first signed request
    assert approved.snapshot({"n": 1}).status_code == 202
    assert server.get("applications/fourth/kpis").json()["kpis"][0]["value"] == 1


def test_only_listed_applications_may_register(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_APPLICATIONS="Ledger, Ünïcode App,other-app")
    statuses = {
        name: Install(server.url, app_name=name).register().status_code
        for name in ("Ledger", "LEDGER", "Ünïcode App", "Other App", "Stranger", "Ledger 2")
    }
    assert statuses == {
        "Ledger": 201,
        "LEDGER": 201,
        "Ünïcode App": 201,
        "Other App": 201,
        "Stranger": 403,
        "Ledger 2": 403,
    }
    known = Install(server.url).enroll({"n": 1})
    assert problem(known.register(app_name="Stranger")) == (403, "unknown_application")
