"""How often each install, address and token may ask, and who is banned for guessing tokens.

All of it is in memory, bounded, and forgotten with the process; each process counts for itself. An address is held only
as a hash under a key that dies with the process. Nobody can use up what is another's: an address's budget is taken by
its own requests, an install's only by a new snapshot that it signed, a token's only by whoever holds it.
"""

import asyncio
import hashlib
import ipaddress
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shm.core.errors import TooMany
from shm.core.setting_types import Network
from shm.core.settings import Settings

logger = logging.getLogger(__name__)

MAX_KEYS = 100_000  # remembered by each limit, about 200 bytes each; past it the ones longest unheard of are forgotten
MAX_GOOD_TOKENS = 1_000  # that held once and may go past a ban
MAX_HOPS = 20  # addresses of X-Forwarded-For that are looked at
IPV6_PREFIX = 64  # one customer's network: whoever has one address of it has them all

K = TypeVar("K")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """What is left of a budget. Times in seconds from now."""

    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float  # 0 where there is something left

    def headers(self) -> dict[str, str]:
        """As an answer tells it; the reset is a moment in Unix time."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(time.time() + self.reset_s)),
        }


class TokenBucket(Generic[K]):
    """A bucket of `burst` for each key, filled again at `requests` a `period_s`.

    Kept is one number a key: the moment at which its bucket is full again. One that is full needs no memory.
    """

    def __init__(self, requests: int, period_s: float, burst: int, clock: Clock = time.monotonic) -> None:
        self._step_s = period_s / requests
        self._burst = burst
        self._clock = clock
        self._full_at: OrderedDict[K, float] = OrderedDict()

    def peek(self, key: K) -> RateLimitStatus:
        """What is left, with nothing taken."""
        now = self._clock()
        return self._allowance(max(0.0, self._full_at.get(key, now) - now))

    def take(self, key: K) -> RateLimitStatus:
        """Takes one, below nothing if need be: what could not be foreseen is owed."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + self._step_s
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_KEYS:
            self._full_at.popitem(last=False)
        return self._allowance(full_at - now)

    def sweep(self) -> None:
        """Forgets the buckets that are full again."""
        now = self._clock()
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]

    def __len__(self) -> int:
        return len(self._full_at)

    def _allowance(self, owed_s: float) -> RateLimitStatus:
        most_owed_s = (self._burst - 1) * self._step_s
        return RateLimitStatus(
            self._burst,
            max(0, self._burst - math.ceil(owed_s / self._step_s - 1e-9)),
            owed_s,
            max(0.0, owed_s - most_owed_s),
        )


@dataclass(slots=True)
class _FailedLogins:
    """Bad tokens of an address: each counts once, however often a program that was given it tries."""

    tokens: set[bytes] = field(default_factory=set)
    until: float = 0.0


class RateLimiter:
    """The limits of one server process."""

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self.enabled = settings.ratelimit_enabled
        self._trusted = settings.trusted_proxies
        self._secret = secrets.token_bytes(32)
        self._clock = clock
        self._threshold = settings.ratelimit_bruteforce_threshold
        self._ban_s = settings.ratelimit_bruteforce_ban.total_seconds()
        self._cleanup_s = settings.ratelimit_cleanup_interval.total_seconds()
        self._guesses: OrderedDict[bytes, _FailedLogins] = OrderedDict()
        self._good_tokens: OrderedDict[bytes, None] = OrderedDict()
        self._told_of_proxy = False
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
        self._tokens: TokenBucket[bytes] = TokenBucket(
            settings.ratelimit_admin_requests,
            settings.ratelimit_admin_period.total_seconds(),
            settings.ratelimit_admin_burst,
            clock,
        )

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(self._cleanup_s)
            self.sweep()

    def sweep(self) -> None:
        """Forgets whatever a budget or a ban needs no more."""
        for limit in (self._addresses, self._installs, self._tokens):
            limit.sweep()
        now = self._clock()
        for address in [address for address, guesses in self._guesses.items() if guesses.until <= now]:
            del self._guesses[address]

    def hash_address(self, peer: str, forwarded: list[str]) -> bytes:
        """Who asks, as a keyed hash: the peer, or what the nearest trusted proxies say of whom they speak for."""
        hops = [hop.strip() for value in forwarded for hop in value.split(",")][-MAX_HOPS:]
        asking = _network(peer)
        if hops and not self._trusts(asking) and not self._told_of_proxy:
            self._told_of_proxy = True
            logger.warning(
                "X-Forwarded-For came from an address that is not in SHM_TRUSTED_PROXIES, and is not believed: "
                "behind a proxy that is not named there, all installs share one budget"
            )
        while hops and self._trusts(asking):
            said = _network(hops.pop())
            if said is None:
                break
            asking = said
        return hashlib.blake2b(_packed(asking), key=self._secret, digest_size=16).digest()

    def take_address(self, address: bytes) -> RateLimitStatus | None:
        """For register, activate and the signed actions. None where limits are off. Raises TooMany."""
        return self._taken(self._addresses, address, "This address has asked too often.")

    def check_install(self, instance_id: str) -> RateLimitStatus | None:
        """Before a verified snapshot is stored: nothing is taken yet. Raises TooMany."""
        if not self.enabled:
            return None
        left = self._installs.peek(instance_id)
        if left.retry_after_s > 0:
            raise _too_many(left, "This instance has sent snapshots too often.")
        return left

    def take_install(self, instance_id: str) -> RateLimitStatus | None:
        """After a snapshot was stored that had not been there: a replay takes nothing from its victim."""
        return self._installs.take(instance_id) if self.enabled else None

    def take_token(self, token: bytes) -> RateLimitStatus | None:
        """For a token, given as its hash, that held. Raises TooMany."""
        return self._taken(self._tokens, token, "This token has been used too often.")

    def check_ban(self, address: bytes, token: bytes) -> None:
        """Before a token is looked up. Whoever holds one that was good here is not kept out. Raises TooMany."""
        guesses = self._guesses.get(address)
        if not self.enabled or guesses is None or token in self._good_tokens:
            return
        left_s = guesses.until - self._clock()
        if left_s > 0 and len(guesses.tokens) >= self._threshold:
            raise TooMany("too_many_guesses", "Too many bad tokens came from this address.", math.ceil(left_s))

    def record_attempt(self, address: bytes, token: bytes, *, succeeded: bool) -> None:
        """After a token was looked up: whether it was good."""
        if succeeded:
            self._good_tokens[token] = None
            self._good_tokens.move_to_end(token)
            if len(self._good_tokens) > MAX_GOOD_TOKENS:
                self._good_tokens.popitem(last=False)
            return
        now = self._clock()
        guesses = self._guesses.setdefault(address, _FailedLogins())
        if guesses.until <= now:
            guesses.tokens.clear()
        if len(guesses.tokens) < self._threshold:
            guesses.tokens.add(token)
            guesses.until = now + self._ban_s
        self._guesses.move_to_end(address)
        if len(self._guesses) > MAX_KEYS:
            self._guesses.popitem(last=False)

    def _taken(self, limit: TokenBucket[bytes], key: bytes, sentence: str) -> RateLimitStatus | None:
        if not self.enabled:
            return None
        left = limit.peek(key)
        if left.retry_after_s > 0:
            raise _too_many(left, sentence)
        return limit.take(key)

    def _trusts(self, asking: Network | None) -> bool:
        return asking is not None and any(
            asking.version == proxy.version and asking.subnet_of(proxy)  # type: ignore[arg-type]  # of one version
            for proxy in self._trusted
        )


def _too_many(left: RateLimitStatus, sentence: str) -> TooMany:
    return TooMany("rate_limited", sentence, math.ceil(left.retry_after_s), left.headers())


def _network(text: str) -> Network | None:
    """An address as a network of one; an IPv4 address within IPv6 is the IPv4 one. None for anything else."""
    try:
        address = ipaddress.ip_address(_without_port(text))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return ipaddress.ip_network(address)


def _without_port(text: str) -> str:
    """Some proxies write ports: `192.0.2.7:5678`, `[2001:db8::1]:5678`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _packed(network: Network | None) -> bytes:
    if network is None:
        return b""
    if network.version == 6:
        network = network.supernet(new_prefix=IPV6_PREFIX)
    return network.network_address.packed
