"""Where the server listens, TLS, and proxies."""

from dataclasses import dataclass
from pathlib import Path

from shm.core.settings.fields import setting
from shm.core.settings.parsers import Network, parse_host, parse_networks, parse_path, parse_port, parse_positive_int


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Network."""

    host: str = setting(
        "SHM_HOST",
        parse_host,
        "127.0.0.1",
        "Address to listen on. The default is reachable from this machine only, so that nothing is public by accident. "
        "`0.0.0.0` is all addresses of IPv4, `::` or `*` all of IPv6 and IPv4.",
    )
    port: int = setting("PORT", parse_port, "8080", "Port to listen on. The original server's default.")
    workers: int = setting(
        "SHM_WORKERS",
        parse_positive_int,
        "1",
        "Server processes behind one port. A process uses one core, so more cores take in more snapshots "
        "with more processes.",
    )
    tls_cert: Path | None = setting(
        "SHM_TLS_CERT",
        parse_path,
        None,
        "Certificate with its chain, in PEM, for TLS without a proxy. A renewed file is used within seconds, without a "
        "restart. With a proxy, which ends TLS itself, leave it empty.",
    )
    tls_key: Path | None = setting(
        "SHM_TLS_KEY",
        parse_path,
        None,
        "Key of the certificate, in PEM, without a passphrase. Only the user that runs the server should be able to "
        "read it.",
    )
    trusted_proxies: tuple[Network, ...] = setting(
        "SHM_TRUSTED_PROXIES",
        parse_networks,
        "",
        "Addresses or networks whose X-Forwarded-For is used, separated by commas. From any other sender "
        "the header would let one flood appear as many addresses.",
    )
