"""Which address a client has, and which addresses share the limits of one."""

from collections.abc import Callable

import pytest

from shm.auth.rate_limits import RateLimiter
from shm.core.settings import Settings
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import RATE_LIMITS, ServerProcess


def test_an_address_is_stored_only_as_a_keyed_hash() -> None:
    first, second = RateLimiter(Settings()), RateLimiter(Settings())
    assert first.hash_address("192.0.2.7", []) == first.hash_address("192.0.2.7", [])
    assert first.hash_address("192.0.2.7", []) != second.hash_address("192.0.2.7", [])
    assert first.hash_address("192.0.2.7", []) == first.hash_address("::ffff:192.0.2.7", [])


@pytest.mark.parametrize(
    ("address", "other", "is_one"),
    [
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.7", "::ffff:192.0.2.7", True),  # mapped
        ("192.0.2.7", "64:ff9b::192.0.2.7", True),  # NAT64
        ("192.0.2.7", "2002:c000:207::1", True),  # 6to4
        ("192.0.2.7", "2002:c000:207:ffff::1", True),
        ("192.0.2.7", "2001:0:4136:e378:8000:63bf:3fff:fdf8", True),  # Teredo
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("64:ff9b::192.0.2.7", "64:ff9b::192.0.2.8", False),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(address: str, other: str, is_one: bool) -> None:
    limiter = RateLimiter(Settings.load({"SHM_TRUSTED_PROXIES": "10.0.0.1"}))
    assert (limiter.hash_peer(address) == limiter.hash_peer(other)) is is_one
    forwarded = [limiter.rate_limit_address("10.0.0.1", [text]) for text in (address, other)]
    assert (forwarded[0] == forwarded[1]) is is_one


def test_all_addresses_of_an_ipv6_network_share_each_budget(serve: Callable[..., ServerProcess]) -> None:
    """Those of registrations, of new installs and of wrong tokens, whatever way the proxy writes the address."""
    server = serve(
        **RATE_LIMITS,
        SHM_TRUSTED_PROXIES="127.0.0.1",
        SHM_MAX_NEW_INSTALLS_PER_ADDRESS="2",
        SHM_RATELIMIT_REGISTER_REQUESTS="1",
        SHM_RATELIMIT_REGISTER_BURST="4",
    )

    def register(address: str) -> int:
        install = Install(server.url)
        return install.post("/v1/register", install.registration(), {"X-Forwarded-For": address}).status_code

    def guess(number: int) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer guess-{number}", "X-Forwarded-For": f"2001:db8:0:7::{number + 1:x}"}
        return problem(plain_http.get(f"{server.url}/api/v1/admin/stats", headers=headers))

    statuses = [register(f"[2001:db8:0:7:{number:x}::{number:x}]:5678") for number in range(1, 6)]
    assert statuses == [201, 201, 429, 429, 429]
    assert register("2001:db8:0:8::1") == 201
    assert [guess(number) for number in range(7)][-2:] == [(429, "too_many_guesses")] * 2


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
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
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1, "], "198.51.100.1"),  # RFC 9110: empty elements are ignored
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1", ""], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1,\t, 10.0.0.3"], "198.51.100.1"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("172.16.0.9", ["198.51.100.1"], "198.51.100.1"),
        ("2002:a00:2::1", ["198.51.100.1"], "10.0.0.2"),  # 6to4: its sender chooses the IPv4 address in it
        ("64:ff9b::10.0.0.2", ["198.51.100.1"], "10.0.0.2"),
    ],
)
def test_only_a_trusted_proxys_forwarded_header_is_used(peer: str, forwarded: list[str], client: str) -> None:
    limiter = RateLimiter(Settings.load({"SHM_TRUSTED_PROXIES": "10.0.0.0/8, ::1, ::ffff:172.16.0.0/112"}))
    assert limiter.hash_address(peer, forwarded) == limiter.hash_address(client, [])
