"""Rate limits: bounded, fair to whoever shares an address, and never used up for somebody else."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.auth import rate_limits
from shm.auth.rate_limits import RateLimiter, TokenBucket
from shm.core.errors import TooMany
from shm.core.settings import Settings
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import ServerProcess

OFFICE = 50


class Clock:
    """A time that only the test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def limited(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the limits that it has when nobody sets any."""
    return serve(SHM_RATELIMIT_ENABLED="true")


steps = st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60)


@given(requests=st.integers(1, 5), burst=st.integers(1, 5), steps=steps)
def test_a_limit_is_a_bucket_that_fills_again_one_by_one(
    requests: int, burst: int, steps: list[tuple[float, bool]]
) -> None:
    clock = Clock()
    limit: TokenBucket[str] = TokenBucket(requests, 60, burst, clock)
    tokens, filled_at = float(burst), clock.now  # the bucket as one would draw it
    for pause, taking in steps:
        clock.now += pause
        tokens = min(burst, tokens + (clock.now - filled_at) * requests / 60)
        filled_at = clock.now
        left = limit.peek("key")
        assert (left.retry_after_s <= 1e-6) == (tokens >= 1 - 1e-6)
        assert abs(left.remaining - max(0, math.floor(tokens + 1e-6))) <= (
            1 if abs(tokens - round(tokens)) < 1e-5 else 0
        )
        if taking:  # even where nothing is left: it is owed
            limit.take("key")
            tokens -= 1


def test_a_bucket_that_is_full_again_is_forgotten() -> None:
    clock = Clock()
    limit: TokenBucket[int] = TokenBucket(1, 60, 2, clock)
    for key in range(100):
        limit.take(key)
    clock.now += 61
    limit.take(200)
    limit.sweep()
    assert len(limit) == 1


def test_whatever_comes_a_limit_remembers_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 1_000)
    limit: TokenBucket[int] = TokenBucket(1, 60, 2)
    for key in range(5_000):
        limit.take(key)
    assert len(limit) == 1_000
    mine = RateLimiter(Settings())
    for number in range(5_000):
        mine.record_attempt(number.to_bytes(16), b"bad", succeeded=False)
    assert len(mine._failed_logins) == 1_000


def test_an_address_is_held_only_as_a_keyed_hash() -> None:
    first, second = RateLimiter(Settings()), RateLimiter(Settings())
    assert first.hash_address("192.0.2.7", []) == first.hash_address("192.0.2.7", [])
    assert first.hash_address("192.0.2.7", []) != second.hash_address("192.0.2.7", [])
    assert first.hash_address("192.0.2.7", []) == first.hash_address("::ffff:192.0.2.7", [])
    assert (
        first.hash_address("2001:db8::1", [])
        == first.hash_address("2001:db8::2:3:4:5", [])
        != first.hash_address("2001:db9::1", [])
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "asking"),
    [
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.2", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.2", ["198.51.100.1:5678"], "198.51.100.1"),
        ("10.0.0.2", ["[2001:db8::1]:5678"], "2001:db8::1"),
        ("10.0.0.2", ["nonsense"], "10.0.0.2"),
        ("10.0.0.2", [""], "10.0.0.2"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_only_a_trusted_proxy_says_for_whom_it_speaks(peer: str, forwarded: list[str], asking: str) -> None:
    mine = RateLimiter(Settings.load({"SHM_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}))
    assert mine.hash_address(peer, forwarded) == mine.hash_address(asking, [])


def test_a_ban_counts_different_guesses_and_spares_valid_tokens() -> None:
    """A ban counts different guesses ends and spares tokens that were good."""
    clock = Clock()
    mine = RateLimiter(Settings.load({"SHM_RATELIMIT_BRUTEFORCE_THRESHOLD": "3"}), clock)
    address, neighbour = mine.hash_address("192.0.2.7", []), mine.hash_address("192.0.2.8", [])
    mine.record_attempt(address, b"good", succeeded=True)
    for _ in range(50):
        mine.record_attempt(address, b"outdated", succeeded=False)  # a console that was given it tries again and again
    mine.check_ban(address, b"other")
    for guess in (b"1", b"2", b"3"):
        mine.record_attempt(address, guess, succeeded=False)
    with pytest.raises(TooMany):
        mine.check_ban(address, b"other")
    mine.check_ban(address, b"good")
    mine.check_ban(neighbour, b"other")
    clock.now += 15 * 60 + 1
    mine.check_ban(address, b"other")


def test_an_office_of_fifty_behind_one_address_gets_in_at_once(limited: ServerProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Install(limited.url).enroll({"n": 1}), range(OFFICE)))
    assert limited.get("stats").json()["active_instances"] == OFFICE


def test_an_address_that_registers_on_and_on_is_told_when_to_come_back(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_RATELIMIT_REGISTER_REQUESTS="6", SHM_RATELIMIT_REGISTER_BURST="3")
    answers = [Install(server.url).register() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert problem(answers[3]) == (429, "rate_limited")
    assert 0 < int(answers[3].headers["Retry-After"]) <= 10
    reset = datetime.fromtimestamp(int(answers[3].headers["X-RateLimit-Reset"]), UTC) - datetime.now(UTC)
    assert timedelta(seconds=20) < reset <= timedelta(seconds=31)
    elsewhere = plain_http.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9"))
    with elsewhere:
        body = Install(server.url).registration()
        assert elsewhere.post(f"{server.url}/v1/register", content=body).status_code == 201


def test_the_rate_limit_of_an_install_spares_its_neighbour(
    limited: ServerProcess,
) -> None:
    """An install that sends on and on is told when to come back and its neighbour is not."""
    install, neighbour = Install(limited.url).enroll({"n": 0}), Install(limited.url).enroll({"n": 0})
    answers = [install.snapshot({"n": number}) for number in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 202, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["3", "2", "1", "0", "0"]
    assert problem(answers[4]) == (429, "rate_limited")
    assert 0 < int(answers[4].headers["Retry-After"]) <= 60
    assert neighbour.snapshot({"n": 1}).status_code == 202


def test_nobody_can_use_up_an_installs_budget_but_itself(limited: ServerProcess) -> None:
    victim = Install(limited.url).enroll({"n": 0})
    recorded = victim.snapshot_body({"n": 1})
    headers = victim.signed(recorded)
    assert victim.post("/v1/snapshot", recorded, headers).status_code == 202
    mallory = Install(limited.url, instance_id=victim.instance_id)
    for number in range(20):
        assert problem(mallory.snapshot({"n": number})) == (401, "bad_signature")
        assert victim.post("/v1/snapshot", recorded, headers).status_code == 202  # a replay
        assert problem(victim.snapshot("nonsense")) == (400, "bad_field")
    answers = [victim.snapshot({"n": number}).status_code for number in range(4)]
    assert answers == [202, 202, 202, 429]


def test_what_is_refused_for_its_rate_is_not_stored(limited: ServerProcess) -> None:
    install = Install(limited.url).enroll({"n": 0})
    answers = [install.snapshot({"n": number}) for number in range(1, 10)]
    stored = [number for number, answer in enumerate(answers, 1) if answer.status_code == 202]
    assert stored == [1, 2, 3, 4]
    (item,) = limited.get("instances").json()
    assert item["metrics"] == {"n": 4}


def test_behind_a_trusted_proxy_each_client_has_a_budget_of_its_own(serve: Callable[..., ServerProcess]) -> None:
    settings = {"SHM_RATELIMIT_ENABLED": "true", "SHM_RATELIMIT_REGISTER_BURST": "2"}
    trusting, wary = serve(**settings, SHM_TRUSTED_PROXIES="127.0.0.0/8"), serve(**settings)

    def statuses(server: ServerProcess) -> list[int]:
        return [
            install.post("/v1/register", install.registration(), {"X-Forwarded-For": f"192.0.2.{number}"}).status_code
            for number, install in enumerate(Install(server.url) for _ in range(4))
        ]

    assert statuses(trusting) == [201] * 4
    assert statuses(wary) == [201, 201, 429, 429]
    assert wary.log.count("SHM_TRUSTED_PROXIES") == 1
    assert "SHM_TRUSTED_PROXIES" not in trusting.log


def test_whoever_guesses_tokens_is_banned_and_whoever_has_one_is_not(limited: ServerProcess) -> None:
    url = f"{limited.url}/api/v1/admin/stats"
    limited.get("stats")
    guesses = [plain_http.get(url, headers={"Authorization": f"Bearer guess-{number}"}) for number in range(7)]
    assert [problem(guess) for guess in guesses] == [(401, "bad_token")] * 5 + [(429, "too_many_guesses")] * 2
    assert 800 < int(guesses[-1].headers["Retry-After"]) <= 900
    limited.get("stats")


def test_a_token_has_a_budget_that_no_other_uses_up(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_RATELIMIT_ADMIN_BURST="3", SHM_RATELIMIT_ADMIN_REQUESTS="1")
    url = f"{server.url}/api/v1/admin/stats"
    for _ in range(10):
        assert problem(plain_http.get(url, headers={"Authorization": "Bearer bad"})) == (401, "bad_token")
    answers = [plain_http.get(url, headers=server.headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]


def test_limits_can_be_switched_off(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"n": 0})
    answers = [install.snapshot({"n": number}) for number in range(20)]
    assert {answer.status_code for answer in answers} == {202}
    assert "X-RateLimit-Limit" not in answers[0].headers
