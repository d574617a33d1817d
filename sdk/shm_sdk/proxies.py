"""The proxy for a server, by the variables of the environment. Pure.

`http_proxy` or `https_proxy`, else `all_proxy`; `no_proxy` lists the hosts that need none: names with their
sub-domains, addresses, networks such as `10.0.0.0/8`, each with a port if wanted, and `*`. A variable in lower case has
precedence. The system's own proxy settings are not read: on macOS that crashes forked processes.
"""

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit


class UnsupportedProxyError(OSError):
    """The environment names a proxy that the SDK cannot use. Going around it is not an option."""


def find_proxy(url: SplitResult, environment: Mapping[str, str]) -> SplitResult | None:
    """The proxy for this server, None for a direct connection. Raises UnsupportedProxyError."""
    variable, address = _find_address(url.scheme, environment)
    if not address or _is_exempt(url, _read("no_proxy", environment)):
        return None
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        is_valid = bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        raise UnsupportedProxyError(f"{variable} is not the address of a proxy") from None
    if proxy.scheme != "http":
        kind = proxy.scheme if proxy.scheme.isalnum() else "its"
        raise UnsupportedProxyError(f"{variable} is a proxy of the kind {kind}://; only http:// proxies are supported")
    if not is_valid:
        raise UnsupportedProxyError(f"{variable} is not the address of a proxy")
    return proxy


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """The headers for a proxy with a user and a password."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _find_address(scheme: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The name and the value of the variable that names the proxy. An empty variable means no proxy."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                continue  # in a CGI program, a client sets it by a header of its request
            if variable in environment:
                return variable, environment[variable].strip()
    return "", ""


def _read(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name, environment.get(name.upper(), ""))


def _is_exempt(url: SplitResult, no_proxy: str) -> bool:
    host = (url.hostname or "").rstrip(".")
    port = url.port or (443 if url.scheme == "https" else 80)
    return any(_matches(entry, host, port) for entry in no_proxy.lower().replace(",", " ").split())


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `no_proxy` includes the host (in lower case) and port."""
    if entry == "*":
        return True
    if (address := _parse_address(host)) is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass  # a name, or an address with a port
    name, _, digits = entry.rpartition(":")
    if name and digits.isascii() and digits.isdigit():
        return digits.lstrip("0") == str(port) and _matches(name, host, port)
    name = entry.lstrip("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _parse_address(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
