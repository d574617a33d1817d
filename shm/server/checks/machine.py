"""Checks of the settings against the machine: open files, disk, data directory, TLS, and who can reach the server."""

import os
import shlex
import stat
from collections.abc import Iterator
from ipaddress import ip_address

from shm.analytics.disk_forecast import free_bytes
from shm.auth.token_file import TOKEN_FILE
from shm.core.file_limit import max_open_connections, open_files_limit
from shm.core.settings import Settings
from shm.server.checks.certificate import check_certificate
from shm.server.checks.finding import Finding, Level

STOPPED_BYTES = 32 * 1024**2  # with less free space an embedded PostgreSQL does not start
SCARCE_BYTES = 2 * 1024**3
SCARCE_INODES = 10_000


def check_machine(settings: Settings) -> Iterator[Finding]:
    """All checks, each with one finding at least. Cheap: they read a few files' attributes."""
    yield _check_files(settings)
    yield from _check_disk(settings)
    yield _check_token_file(settings)
    yield _check_proxies(settings)
    yield _check_exposure(settings)
    yield from check_certificate(settings)


def _check_files(settings: Settings) -> Finding:
    allowed = max_open_connections()
    text = f"the process may open {open_files_limit():.0f} files"
    if allowed is None or allowed >= settings.max_connections:
        return Finding(Level.OK, "files", f"{text}, enough for SHM_MAX_CONNECTIONS={settings.max_connections}")
    return Finding(
        Level.WARNING,
        "files",
        f"{text}, so it accepts {allowed} connections instead of SHM_MAX_CONNECTIONS={settings.max_connections}",
        "Raise the limit (LimitNOFILE of systemd, `ulimits: nofile` of Docker, `ulimit -n`), or lower "
        "SHM_MAX_CONNECTIONS.",
    )


def _check_disk(settings: Settings) -> Iterator[Finding]:
    if settings.dsn is not None:
        yield Finding(Level.OK, "disk", "PostgreSQL has its own; SHM_MAX_DISK says how large the database may become")
        return
    free = free_bytes(settings.data_dir)
    text = f"{free / 1024**3:.1f} GiB are free for the embedded PostgreSQL in {settings.data_dir}"
    remedy = "Free other files on that disk, or enlarge it; SHM_RETENTION bounds the raw snapshots."
    level = Level.OK if free >= SCARCE_BYTES else Level.WARNING if free >= STOPPED_BYTES else Level.ERROR
    yield Finding(level, "disk", text, remedy if level else "")
    directory = settings.data_dir
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    if status.f_files and status.f_favail < SCARCE_INODES:
        text = f"{status.f_favail} files can still be created on the disk of {settings.data_dir}"
        yield Finding(Level.WARNING, "disk", text, "Remove small files from that disk: its inodes are nearly used up.")


def _check_token_file(settings: Settings) -> Finding:
    file = settings.data_dir / TOKEN_FILE
    if settings.admin_token is not None:
        return Finding(Level.OK, "token", "the admin token is set by SHM_ADMIN_TOKEN")
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return Finding(Level.OK, "token", f"the first start of the server writes the admin token to {file}")
    if mode & 0o077:
        return Finding(
            Level.ERROR,
            "token",
            f"other users of this machine can read the admin token in {file} (mode {mode:04o})",
            f"Run `chmod 600 {file}`, and replace the token: `shm token list` has its ID for "
            f"`shm token rotate ID --data-dir {shlex.quote(str(settings.data_dir))}`.",
        )
    return Finding(Level.OK, "token", f"the admin token in {file} is readable for its owner only")


def _check_proxies(settings: Settings) -> Finding:
    everybody = [str(network) for network in settings.trusted_proxies if network.prefixlen == 0]
    if everybody:
        return Finding(
            Level.ERROR,
            "proxies",
            f"SHM_TRUSTED_PROXIES has {everybody[0]}, so every client can choose the address that its limits apply to",
            "Name only the addresses of your proxies.",
        )
    if settings.trusted_proxies:
        names = ", ".join(map(str, settings.trusted_proxies))
        return Finding(Level.OK, "proxies", f"X-Forwarded-For is used from {names}")
    return Finding(
        Level.NOTE,
        "proxies",
        "SHM_TRUSTED_PROXIES is empty: behind a proxy all clients would share the limits of one address",
        "Name the address of the proxy, if there is one.",
    )


def _check_exposure(settings: Settings) -> Finding:
    where = f"{settings.host}, port {settings.port}"
    if _is_loopback(settings.host):
        return Finding(Level.OK, "address", f"{where}, is reachable from this machine only")
    if settings.tls_cert is not None:
        return Finding(Level.OK, "address", f"{where}, is reachable with TLS")
    if settings.metrics_public:
        return Finding(
            Level.NOTE,
            "address",
            f"{where}, serves GET /metrics to everybody who reaches it (SHM_METRICS_PUBLIC)",
            "Let only your monitoring and the proxy reach this port.",
        )
    return Finding(
        Level.NOTE,
        "address",
        f"{where}, is reachable without TLS",
        "Let only a proxy with TLS reach this port: tokens are sent with every request.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
