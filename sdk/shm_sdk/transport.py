"""POST over one persistent connection, with a limit for every wait and every size.

Redirects are not followed, certificates are verified, and proxies are read from the environment. Every failure raises
TransportError, with a reason that can be logged.
"""

import base64
import contextlib
import functools
import http.client
import io
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from ssl import SSLContext

    from _typeshed import WriteableBuffer

CONNECT_TIMEOUT_S = 5.0  # for each address of the server; a healthy one answers in a fraction of a second
MAX_RESPONSE_BYTES = 64 * 1024  # the server's longest response has a few hundred
MAX_RETRY_AFTER_S = 86400.0  # a longer Retry-After is shortened to one request a day

Connection = http.client.HTTPConnection


class TransportError(Exception):
    """No HTTP response arrived. The server may or may not have processed the request."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response. `retry_after` is in seconds from now. The body is cut at MAX_RESPONSE_BYTES."""

    status: int
    retry_after: float | None
    body: bytes

    def json_identifier(self, name: str) -> str:
        """A member of the JSON body if it is an identifier such as `pending`, else an empty string."""
        value = self._json_string(name)
        return value if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value) else ""

    def json_timestamp(self, name: str) -> datetime | None:
        """A member of the JSON body if it is a time with an offset, else None."""
        try:
            value = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", self._json_string(name)))
            return value.astimezone(UTC) if value.tzinfo else None
        except (ValueError, OverflowError):
            return None

    def _json_string(self, name: str) -> str:
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        value = document.get(name) if isinstance(document, dict) else None
        return value if isinstance(value, str) else ""


class Transport:
    """The connection to one server. Not thread-safe: the owner holds a lock during `post` and `close`."""

    def __init__(self, server_url: str, user_agent: str) -> None:
        self._url = urlsplit(server_url)
        self._user_agent = user_agent
        self._connection: Connection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Response:
        """Sends a JSON body and returns the response of any status within `timeout` seconds. Raises TransportError."""
        deadline = time.monotonic() + timeout
        is_reused = self._connection is not None
        try:
            return self._send(path, body, headers, deadline)
        except ConnectionError as error:
            # The server may close an idle connection at any time. A retry is safe: a repeated snapshot is stored once.
            if not is_reused:
                raise TransportError(_describe_error(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransportError(_describe_error(error)) from None
        try:
            return self._send(path, body, headers, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransportError(_describe_error(error)) from None

    def close(self) -> None:
        """Closes the connection; the next `post` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        # Prevents a ResourceWarning in a host that does not call `stop`.
        with contextlib.suppress(Exception):
            self.close()

    def _send(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Response:
        connection, prefix, proxy_headers = self._prepare_connection()
        is_reusable = False
        try:
            connection.timeout = min(CONNECT_TIMEOUT_S, _remaining_s(deadline))
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(_remaining_s(deadline))
            connection.response_class = functools.partial(_DeadlineResponse, deadline=deadline)  # type: ignore[assignment]
            connection.request(
                "POST",
                prefix + self._url.path + path,
                body,
                {"Content-Type": "application/json", "User-Agent": self._user_agent, **proxy_headers, **headers},
            )
            response = connection.getresponse()
            content = response.read(MAX_RESPONSE_BYTES)
            is_reusable = response.isclosed()
            return Response(response.status, _parse_retry_after(response.headers.get("Retry-After")), content)
        finally:
            if is_reusable:
                self._connection = connection
            else:
                self._connection = None
                connection.close()

    def _prepare_connection(self) -> tuple[Connection, str, dict[str, str]]:
        """The connection, the prefix of the path, and the headers for a proxy."""
        host, port, secure = self._url.hostname or "", self._url.port, self._url.scheme == "https"
        proxy = _find_proxy(self._url)
        if proxy is None:
            return self._connection or _create_connection(host, port, secure=secure), "", {}
        headers = _proxy_headers(proxy)
        connection = self._connection
        if not secure:
            # A proxy expects the absolute URL of a plain HTTP request.
            connection = connection or _create_connection(proxy.hostname or "", proxy.port or 80, secure=False)
            return connection, f"http://{self._url.netloc}", headers
        if connection is None:
            connection = _create_connection(proxy.hostname or "", proxy.port or 80, secure=True)
            connection.set_tunnel(host, port or 443, headers)
        return connection, "", {}


class _DeadlineResponse(http.client.HTTPResponse):
    """Reads until one deadline, so that a server that sends a byte every few seconds cannot block the caller."""

    def __init__(self, sock: socket.socket, *, deadline: float, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock, deadline))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        self._sock.settimeout(_remaining_s(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _remaining_s(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError past it."""
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("timed out")
    return remaining_s


def _create_connection(host: str, port: int | None, *, secure: bool) -> Connection:
    if secure:
        return http.client.HTTPSConnection(host, port, context=_tls_context())
    return http.client.HTTPConnection(host, port)


@functools.cache
def _tls_context() -> "SSLContext":
    """One verifying context for all clients of the process: loading the system's certificates takes milliseconds."""
    import ssl

    return ssl.create_default_context()


def _find_proxy(url: SplitResult) -> SplitResult | None:
    """The proxy for this server from the environment, None for a direct connection.

    The system's own proxy settings are not read: on macOS that crashes forked processes.
    """
    from urllib.request import getproxies_environment, proxy_bypass

    address = getproxies_environment().get(url.scheme)
    if not address or proxy_bypass(url.netloc):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise TransportError(f"the {url.scheme}_proxy of the environment is not an http:// proxy")
    return proxy


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _parse_retry_after(header: str | None) -> float | None:
    """A Retry-After header (seconds or a date) as seconds from now; None if it is invalid."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_S)
    from email.utils import parsedate_to_datetime

    try:
        delay_s = parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return min(max(delay_s, 0.0), MAX_RETRY_AFTER_S)


def _describe_error(error: Exception) -> str:
    """A reason for a person, in the system's words only: an exception's text may quote what the server sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        if error.strerror:
            return getattr(error, "verify_message", "") or error.strerror
        return "the proxy refuses the tunnel" if type(error) is OSError else type(error).__name__
    return f"no valid HTTP response ({type(error).__name__})"
