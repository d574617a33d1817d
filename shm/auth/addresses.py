"""Addresses of clients, as connections and proxies write them, and what the limits count as one address."""

import ipaddress

from shm.core.settings.parsers import Network

IPV6_PREFIX = 64  # the smallest network of one customer, who can use all of its addresses
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # translators put a client's IPv4 address into the last 32 bits


def parse_address(text: str) -> Network | None:
    """An address as a network of one, without a zone; an IPv4-mapped IPv6 address as IPv4. None for anything else."""
    try:
        address = ipaddress.ip_address(_without_port(text).partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return ipaddress.ip_network(address)


def _without_port(text: str) -> str:
    """Removes the port that some proxies write: `192.0.2.7:5678`, `[2001:db8::1]:5678`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def rate_limit_key(network: Network | None) -> bytes:
    """The part of an address that all limits count as one: an IPv4 address, or the first 64 bits of IPv6."""
    if network is None:
        return b""
    address = network.network_address
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded_ipv4(address) or address
    return address.packed if address.version == 4 else address.packed[: IPV6_PREFIX // 8]


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The client's IPv4 address in an IPv6 address of NAT64, 6to4 or Teredo.

    With 6to4 one IPv4 address has 65,536 networks of 64 bits. With the others many clients share one. It is used for
    limits only: a client may choose it, so it never makes an address a trusted proxy.
    """
    if address in NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour or (address.teredo and address.teredo[1])
