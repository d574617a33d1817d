"""Rate limits of instances, addresses and tokens, and bans of addresses that guess tokens.

The state is in memory, bounded, and separate in each process. An address is stored only as a hash with a random key of
the process. No client can consume the budget of another: that of an address is consumed by its own requests, that of an
instance only by a new snapshot with its signature, that of a token only by its holder. The limits of addresses do not
apply to trusted proxies.
"""

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shm.auth.addresses import parse_address, rate_limit_key
from shm.core.errors import TooManyRequests
from shm.core.settings import Settings
from shm.core.settings.parsers import Network

logger = logging.getLogger(__name__)

MAX_KEYS = 100_000  # of each limit, about 200 bytes each; beyond it the least recently used are evicted
MAX_VALID_TOKENS = 1_000  # valid tokens that bypass a ban
MAX_REPLAYS = 10_000  # hashes of repeated snapshots; an older one costs a transaction once more
HOUR_S = 3_600.0
NO_REFILL_INTERVAL_S = 3_600.0 * 24 * 365 * 100  # the interval of a bucket that is not refilled
MAX_HOPS = 20  # addresses of X-Forwarded-For that are parsed

K = TypeVar("K")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The remaining budget. Times are in seconds from now."""

    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float  # 0 while the budget is not exhausted

    def headers(self) -> dict[str, str]:
        """The response headers; the reset is a Unix time in seconds."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(time.time() + self.reset_s)),
        }


class TokenBucket(Generic[K]):
    """A bucket of `burst` tokens for each key, refilled at `requests` a `period_s`.

    The state is one number a key: the time at which its bucket is full again. Full buckets are not stored. Zeros mean
    what they mean in the original: without requests a bucket is not refilled, without a period it has no limit, and
    without a burst it is always empty.
    """

    def __init__(self, requests: int, period_s: float, burst: int, clock: Clock = time.monotonic) -> None:
        self._refill_interval_s = period_s / requests if requests else NO_REFILL_INTERVAL_S
        self._burst = burst
        self._clock = clock
        self._full_at: OrderedDict[K, float] = OrderedDict()

    def peek(self, key: K) -> RateLimitStatus:
        """The remaining budget, without taking a token."""
        now = self._clock()
        return self._status(max(0.0, self._full_at.get(key, now) - now))

    def take(self, key: K, count: int = 1) -> RateLimitStatus:
        """Takes tokens, even from an empty bucket: a request whose cost is known only afterwards leaves a debt."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + count * self._refill_interval_s
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_KEYS:
            self._full_at.popitem(last=False)
        return self._status(full_at - now)

    def refund(self, key: K) -> None:
        """Returns a token that was taken and not used."""
        if key in self._full_at:
            self._full_at[key] -= self._refill_interval_s

    def remove_expired(self) -> None:
        """Removes full buckets."""
        now = self._clock()
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]

    def __len__(self) -> int:
        return len(self._full_at)

    def _status(self, debt_s: float) -> RateLimitStatus:
        if not self._refill_interval_s:
            return RateLimitStatus(self._burst, self._burst, 0.0, 0.0)
        max_debt_s = (self._burst - 1) * self._refill_interval_s
        return RateLimitStatus(
            self._burst,
            max(0, self._burst - math.ceil(debt_s / self._refill_interval_s - 1e-9)),
            debt_s,
            max(0.0, debt_s - max_debt_s),
        )


@dataclass(slots=True)
class Reservation:
    """A token of the budget of an address while a request is handled. It is returned unless it `is_used`.

    So concurrent requests do not exceed a budget. Not granted: the budget is empty. `limit` is None without a limit.
    """

    limit: TokenBucket[bytes] | None
    address: bytes
    is_granted: bool
    is_used: bool = False

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        if self.limit is not None and self.is_granted and not self.is_used:
            self.limit.refund(self.address)


@dataclass(slots=True)
class _FailedLogins:
    """Distinct invalid tokens of an address: a program that retries one outdated token counts once."""

    tokens: set[bytes] = field(default_factory=set)
    until: float = 0.0


class RateLimiter:
    """The rate limits of one server process."""

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self.enabled = settings.ratelimit_enabled
        self._trusted_proxies = settings.trusted_proxies
        self._hash_key = secrets.token_bytes(32)
        self._clock = clock
        self._threshold = max(1, settings.ratelimit_bruteforce_threshold)  # the first invalid token is one
        self._ban_s = settings.ratelimit_bruteforce_ban.total_seconds()
        self._cleanup_s = settings.ratelimit_cleanup_interval.total_seconds()
        self._failed_logins: OrderedDict[bytes, _FailedLogins] = OrderedDict()
        self._valid_tokens: OrderedDict[bytes, None] = OrderedDict()
        self._has_warned_of_proxy = False
        self._addresses: TokenBucket[bytes] = TokenBucket(
            settings.ratelimit_register_requests,
            settings.ratelimit_register_period.total_seconds(),
            settings.ratelimit_register_burst,
            clock,
        )
        self._installs: TokenBucket[str] = TokenBucket(
            settings.ratelimit_snapshot_requests,
            settings.ratelimit_snapshot_period.total_seconds(),
            settings.ratelimit_snapshot_burst,
            clock,
        )
        self._failed_requests: TokenBucket[bytes] = TokenBucket(
            settings.ratelimit_failed_requests,
            settings.ratelimit_failed_period.total_seconds(),
            settings.ratelimit_failed_burst,
            clock,
        )
        self._unauthenticated: TokenBucket[bytes] = TokenBucket(
            settings.ratelimit_unauthenticated_requests,
            settings.ratelimit_unauthenticated_period.total_seconds(),
            settings.ratelimit_unauthenticated_burst,
            clock,
        )
        self._new_installs: TokenBucket[bytes] = TokenBucket(
            settings.max_new_installs_per_address, HOUR_S, settings.max_new_installs_per_address, clock
        )
        self._bytes: TokenBucket[bytes] = TokenBucket(
            settings.max_bytes_per_address, HOUR_S, settings.max_bytes_per_address, clock
        )
        self._replays: OrderedDict[bytes, None] = OrderedDict()
        self._tokens: TokenBucket[bytes] = TokenBucket(
            settings.ratelimit_admin_requests,
            settings.ratelimit_admin_period.total_seconds(),
            settings.ratelimit_admin_burst,
            clock,
        )

    async def run(self) -> None:
        """Removes expired state until cancelled. Without an interval it is removed only beyond its limits."""
        while self._cleanup_s:
            await asyncio.sleep(self._cleanup_s)
            self.remove_expired()

    def remove_expired(self) -> None:
        """Removes full buckets and expired bans."""
        for limit in (
            *(self._addresses, self._failed_requests, self._unauthenticated),
            *(self._new_installs, self._bytes, self._tokens),
        ):
            limit.remove_expired()
        self._installs.remove_expired()
        now = self._clock()
        for address in [address for address, failed in self._failed_logins.items() if failed.until <= now]:
            del self._failed_logins[address]

    def hash_address(self, peer: str, forwarded: list[str]) -> bytes:
        """The client's address as a keyed hash: that of the peer, or of X-Forwarded-For from trusted proxies."""
        return self._hash(self._find_client(peer, forwarded))

    def rate_limit_address(self, peer: str, forwarded: list[str]) -> bytes | None:
        """The same for the limits of addresses. None if no limit applies.

        A trusted proxy that names no client has no limit, because all clients behind it share its address.
        """
        if not self.enabled:
            return None
        client = self._find_client(peer, forwarded)
        return None if self._is_trusted(client) else self._hash(client)

    def _find_client(self, peer: str, forwarded: list[str]) -> Network | None:
        hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()][-MAX_HOPS:]
        client = parse_address(peer)
        if hops and not self._is_trusted(client) and not self._has_warned_of_proxy:
            self._has_warned_of_proxy = True
            logger.warning(
                "X-Forwarded-For from an address that is not in SHM_TRUSTED_PROXIES is ignored: "
                "behind a proxy that is not listed there, all instances share one rate limit"
            )
        while hops and self._is_trusted(client):
            forwarded_address = parse_address(hops.pop())
            if forwarded_address is None:
                break
            client = forwarded_address
        return client

    def _hash(self, client: Network | None) -> bytes:
        return hashlib.blake2b(rate_limit_key(client), key=self._hash_key, digest_size=16).digest()

    def hash_peer(self, peer: str) -> bytes | None:
        """The address of a connection as a keyed hash; None for a trusted proxy, which connects for many clients."""
        return None if self._is_trusted(parse_address(peer)) else self.hash_address(peer, [])

    def take_address(self, address: bytes | None) -> RateLimitStatus | None:
        """Takes from the budget of an address, for register, activate and the actions. None if no limit applies.

        Raises TooManyRequests.
        """
        if address is None:
            return None
        return self._take_or_raise(self._addresses, address, "This address has sent too many requests.")

    def take_unauthenticated(self, address: bytes | None) -> TooManyRequests | None:
        """Takes from the budget of an address for a request without a valid token, or a refused one of an install.

        Returns the refusal of an empty budget, and takes nothing from it.
        """
        if address is None:
            return None
        try:
            self._take_or_raise(
                self._unauthenticated, address, "This address has sent too many requests without a valid token."
            )
        except TooManyRequests as refusal:
            return refusal
        return None

    def was_valid(self, token: bytes) -> bool:
        """Whether a token, by its hash, was valid when it was last used, as far as this process remembers."""
        return token in self._valid_tokens

    def reserve_failure(self, address: bytes | None) -> Reservation:
        """Takes from the budget of failed requests of an address while one is handled.

        One that is not granted may cost hardly anything.
        """
        return _reserve(self._failed_requests, address)

    def failed_too_often(self, address: bytes) -> TooManyRequests:
        """The refusal for an address that has used up its budget of failed requests."""
        return _too_many(self._failed_requests.peek(address), "This address has sent too many invalid requests.")

    def record_replay(self, body: bytes) -> None:
        """Recognizes the next repetition of a repeated snapshot."""
        self._replays[hashlib.blake2b(body, digest_size=16).digest()] = None
        if len(self._replays) > MAX_REPLAYS:
            self._replays.popitem(last=False)

    def is_known_replay(self, body: bytes) -> bool:
        """Whether a snapshot with this body was repeated before, in this process."""
        return hashlib.blake2b(body, digest_size=16).digest() in self._replays

    def reserve_new_install(self, address: bytes | None) -> Reservation:
        """Takes from the budget of new instances of an address while one registers.

        A known instance registers without a reservation too.
        """
        return _reserve(self._new_installs, address)

    def too_many_installs(self, address: bytes | None) -> TooManyRequests:
        """The refusal of a new instance beyond the budget of its address."""
        status = self._new_installs.peek(address or b"")
        return _too_many(status, "Too many new instances were registered from this address.")

    def check_bytes(self, address: bytes | None) -> None:
        """Checks, before a snapshot is stored, the bytes that its address has stored. Raises TooManyRequests."""
        if address is not None:
            status = self._bytes.peek(address)
            if status.retry_after_s > 0:
                raise _too_many(status, "Too many bytes were stored from this address.")

    def take_bytes(self, address: bytes | None, count: int) -> None:
        """Takes from the budget of bytes of an address, after a new snapshot was stored."""
        if address is not None:
            self._bytes.take(address, count)

    def check_install(self, instance_id: str) -> RateLimitStatus | None:
        """Checks an instance's budget before a verified snapshot is stored; takes nothing. Raises TooManyRequests."""
        if not self.enabled:
            return None
        status = self._installs.peek(instance_id)
        if status.retry_after_s > 0:
            raise _too_many(status, "This instance has sent too many snapshots.")
        return status

    def take_install(self, instance_id: str) -> RateLimitStatus | None:
        """Takes from the budget of an instance after a new snapshot was stored, so a replay does not consume it."""
        return self._installs.take(instance_id) if self.enabled else None

    def take_token(self, token: bytes) -> RateLimitStatus | None:
        """Takes from the budget of a valid token, by its hash. Raises TooManyRequests."""
        return self._take_or_raise(self._tokens, token, "Too many requests were sent with this token.")

    def find_ban(self, address: bytes, token: bytes) -> TooManyRequests | None:
        """The refusal of a token from a banned address, to be raised unless the token is valid.

        None if the address is not banned, or for a token that was valid before.
        """
        failed = self._failed_logins.get(address)
        if not self.enabled or failed is None or token in self._valid_tokens:
            return None
        remaining_s = failed.until - self._clock()
        if remaining_s <= 0 or len(failed.tokens) < self._threshold:
            return None
        return TooManyRequests(
            "too_many_guesses", "This address has sent too many invalid tokens.", math.ceil(remaining_s)
        )

    def record_attempt(self, address: bytes, token: bytes, *, succeeded: bool) -> None:
        """Records whether a token was valid, after it was looked up."""
        if succeeded:
            self._valid_tokens[token] = None
            self._valid_tokens.move_to_end(token)
            if len(self._valid_tokens) > MAX_VALID_TOKENS:
                self._valid_tokens.popitem(last=False)
            return
        now = self._clock()
        failed = self._failed_logins.setdefault(address, _FailedLogins())
        if failed.until <= now:
            failed.tokens.clear()
        if len(failed.tokens) < self._threshold:
            failed.tokens.add(token)
            failed.until = now + self._ban_s
        self._failed_logins.move_to_end(address)
        if len(self._failed_logins) > MAX_KEYS:
            self._failed_logins.popitem(last=False)

    def _take_or_raise(self, limit: TokenBucket[bytes], key: bytes, detail: str) -> RateLimitStatus | None:
        if not self.enabled:
            return None
        status = limit.peek(key)
        if status.retry_after_s > 0:
            raise _too_many(status, detail)
        return limit.take(key)

    def _is_trusted(self, client: Network | None) -> bool:
        return client is not None and any(
            client.version == proxy.version and client.subnet_of(proxy)  # type: ignore[arg-type]  # of one version
            for proxy in self._trusted_proxies
        )


def _reserve(limit: TokenBucket[bytes], address: bytes | None) -> Reservation:
    if address is None:
        return Reservation(None, b"", is_granted=True)
    is_granted = limit.peek(address).retry_after_s == 0
    if is_granted:
        limit.take(address)
    return Reservation(limit, address, is_granted)


def _too_many(status: RateLimitStatus, detail: str) -> TooManyRequests:
    return TooManyRequests("rate_limited", detail, math.ceil(status.retry_after_s), status.headers())
