"""Connections whose every step ends at one deadline: name resolution, addresses, proxy, TLS, request and response.

The standard library's time-outs apply to a single step. A server with six dead addresses, or a proxy that sends a byte
every few seconds, takes many times as long.
"""

import functools
import os
import socket
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from shm_sdk import forking
from shm_sdk.http_messages import ResponseReader, encode_request
from shm_sdk.threads import run_in_thread

if TYPE_CHECKING:
    from ssl import SSLContext

MAX_ADDRESS_TIMEOUT_S = 5.0  # for each address of the server; a healthy one answers in a fraction of a second
OK_STATUS = 200
CHUNK_BYTES = 16 * 1024  # of one write; a TLS record is no larger

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as getaddrinfo returns it


class TunnelRefusedError(OSError):
    """The proxy does not connect to the server."""


def remaining_s(deadline: float) -> float:
    """Seconds until the deadline (monotonic time); raises TimeoutError past it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class Resolver:
    """Resolves host names in a thread, because the system's resolver has no time-out. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: threading.Thread | None = None  # at most one thread waits for the system

    def resolve(self, name: str, port: int, deadline: float) -> list[AddressInfo]:
        """The addresses of a host; raises OSError, or ValueError for a name that DNS cannot have."""
        host = to_ascii(name)
        try:
            return _address_infos(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name
        if self._waiting is not None and self._waiting.is_alive():
            raise TimeoutError("timed out")
        resolved: SimpleQueue[list[AddressInfo] | OSError | ValueError] = SimpleQueue()

        def run() -> None:
            try:
                resolved.put(_address_infos(host, port, 0))
            except (OSError, ValueError) as error:
                resolved.put(error)

        self._waiting = run_in_thread(run, "shm-telemetry-resolver")
        try:
            result = resolved.get(timeout=remaining_s(deadline))
        except Empty:
            raise TimeoutError("timed out") from None
        self._waiting = None
        if isinstance(result, Exception):
            raise result
        return result


class DeadlineSocket:
    """A connection. Its owner moves `deadline` for each request."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self.deadline = deadline

    def sendall(self, content: bytes) -> None:
        """Sends all of it, or raises TimeoutError at the deadline."""
        rest = memoryview(content)
        while rest:
            self._socket.settimeout(remaining_s(self.deadline))
            rest = rest[self._socket.send(rest[:CHUNK_BYTES]) :]

    def receive(self, count: int) -> bytes:
        """Up to so many bytes, none at the end of the connection. Raises TimeoutError at the deadline."""
        self._socket.settimeout(remaining_s(self.deadline))
        return self._socket.recv(count)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def start_tls(self, host: str, *, with_all_authorities: bool) -> None:
        """Encrypts the connection; raises OSError unless the host proves its name."""
        self._socket.settimeout(remaining_s(self.deadline))
        context, name = _tls_context(with_all_authorities), to_ascii(host)
        # For bytes, the ssl module does not load Python's codec of names. Replacements of it take text only.
        is_original = type(context).__module__ == "ssl"
        server_name = name if is_original else name.decode()
        self._socket = context.wrap_socket(self._socket, server_hostname=server_name)


def connect(resolver: Resolver, host: str, port: int, deadline: float) -> DeadlineSocket:
    """Connects to the first address that answers. Each gets its share of the time; raises OSError."""
    addresses = resolver.resolve(host, port, deadline)
    last_error: OSError = OSError("the name has no address")
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        left_s = remaining_s(deadline)
        try:
            candidate = socket.socket(family, kind, protocol)
        except OSError as error:
            last_error = error
            continue
        try:
            candidate.settimeout(min(MAX_ADDRESS_TIMEOUT_S, left_s / (len(addresses) - position)))
            candidate.connect(address)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            candidate.close()
            last_error = error
        except BaseException:
            candidate.close()
            raise
        else:
            return DeadlineSocket(candidate, deadline)
    raise last_error


def open_tunnel(proxy: DeadlineSocket, host: str, port: int, headers: dict[str, str]) -> None:
    """Asks an HTTP proxy to connect to the server; raises TunnelRefusedError if it does not."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    proxy.sendall(encode_request("CONNECT", target, [("Host", target), *headers.items()]))
    if ResponseReader(proxy.receive).read_head().status != OK_STATUS:
        raise TunnelRefusedError("the proxy refuses the tunnel")


def to_ascii(host: str) -> bytes:
    """The name as DNS and TLS have it. Python's codec for other letters takes half a megabyte."""
    if host.isascii():
        return host.encode()
    with forking.import_lock:
        return host.encode("idna")


def _address_infos(host: bytes, port: int, flags: int) -> list[AddressInfo]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]


@functools.cache
def _tls_context(with_all_authorities: bool) -> "SSLContext":
    """One verifying context for all clients of the process: loading the system's certificates takes milliseconds."""
    from shm_sdk.certificates import create_context

    context = create_context(os.environ, with_all_authorities=with_all_authorities)
    if type(context).__module__ != "ssl":
        with forking.import_lock:
            import encodings.idna  # noqa: F401  # it uses it for every name
    return context
