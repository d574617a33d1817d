"""Token buckets and bans in the memory of a process: how they refill, and that they are bounded."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.auth import rate_limits
from shm.auth.rate_limits import RateLimiter, TokenBucket
from shm.core.settings import Settings


class Clock:
    """A clock that only the test advances."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


steps = st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60)


@given(requests=st.integers(1, 5), burst=st.integers(1, 5), steps=steps)
def test_a_bucket_refills_steadily(requests: int, burst: int, steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    limit: TokenBucket[str] = TokenBucket(requests, 60, burst, clock)
    tokens, filled_at = float(burst), clock.now  # the oracle
    for pause_s, taking in steps:
        clock.now += pause_s
        tokens = min(burst, tokens + (clock.now - filled_at) * requests / 60)
        filled_at = clock.now
        status = limit.peek("key")
        assert (status.retry_after_s <= 1e-6) == (tokens >= 1 - 1e-6)
        assert abs(status.remaining - max(0, math.floor(tokens + 1e-6))) <= (
            1 if abs(tokens - round(tokens)) < 1e-5 else 0
        )
        if taking:  # also from an empty bucket, which leaves a debt
            limit.take("key")
            tokens -= 1


@pytest.mark.parametrize(("requests", "period_s", "burst", "granted"), [(1, 0, 2, 9), (0, 60, 2, 2), (5, 60, 0, 0)])
def test_a_zero_means_what_it_means_in_the_original(requests: int, period_s: int, burst: int, granted: int) -> None:
    clock = Clock()
    limit: TokenBucket[str] = TokenBucket(requests, period_s, burst, clock)
    count = 0
    for _ in range(9):
        clock.now += 3_600
        if limit.peek("key").retry_after_s == 0:
            limit.take("key").headers()
            count += 1
    assert count == granted
    assert int(limit.peek("key").headers()["X-RateLimit-Remaining"]) == (burst if period_s == 0 else 0)


async def test_zeros_of_bans_and_of_the_cleanup_are_read() -> None:
    clock = Clock()
    limiter = RateLimiter(Settings.load({"SHM_RATELIMIT_BRUTEFORCE_BAN": "0"}), clock)
    strict = RateLimiter(
        Settings.load({"SHM_RATELIMIT_BRUTEFORCE_THRESHOLD": "0", "SHM_RATELIMIT_CLEANUP_INTERVAL": "0s"}), clock
    )
    address = limiter.hash_address("192.0.2.7", [])
    for number in range(9):
        limiter.record_attempt(address, bytes([number]), succeeded=False)
    assert limiter.find_ban(address, b"other") is None
    strict.record_attempt(address, b"bad", succeeded=False)
    assert strict.find_ban(address, b"other") is not None
    await strict.run()


def test_a_full_bucket_is_removed() -> None:
    clock = Clock()
    limit: TokenBucket[int] = TokenBucket(1, 60, 2, clock)
    for key in range(100):
        limit.take(key)
    clock.now += 61
    limit.take(200)
    limit.remove_expired()
    assert len(limit) == 1


def test_the_number_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 1_000)
    limit: TokenBucket[int] = TokenBucket(1, 60, 2)
    for key in range(5_000):
        limit.take(key)
    assert len(limit) == 1_000
    limiter = RateLimiter(Settings())
    for number in range(5_000):
        limiter.record_attempt(number.to_bytes(16), b"bad", succeeded=False)
    assert len(limiter._failed_logins) == 1_000


def test_a_ban_counts_distinct_tokens_and_exempts_valid_ones() -> None:
    """A ban counts distinct invalid tokens, expires, and exempts tokens that were valid before."""
    clock = Clock()
    limiter = RateLimiter(Settings.load({"SHM_RATELIMIT_BRUTEFORCE_THRESHOLD": "3"}), clock)
    address, other = limiter.hash_address("192.0.2.7", []), limiter.hash_address("192.0.2.8", [])
    limiter.record_attempt(address, b"good", succeeded=True)
    for _ in range(50):
        limiter.record_attempt(address, b"outdated", succeeded=False)  # such as a console that retries
    assert limiter.find_ban(address, b"other") is None
    for response in (b"1", b"2", b"3"):
        limiter.record_attempt(address, response, succeeded=False)
    assert limiter.find_ban(address, b"other") is not None
    assert limiter.find_ban(address, b"good") is None
    assert limiter.find_ban(other, b"other") is None
    clock.now += 15 * 60 + 1
    assert limiter.find_ban(address, b"other") is None
