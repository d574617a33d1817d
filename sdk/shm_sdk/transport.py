"""POST over one kept connection, with every wait and every size bounded.

Redirects are not followed, certificates are checked, and proxies are those of the environment. Whatever goes wrong on
the way comes out as Unreachable, with a reason that can be logged.
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
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from ssl import SSLContext

    from _typeshed import WriteableBuffer

CONNECT_TIMEOUT = 5.0  # seconds for each address of the server; a healthy one answers in a fraction of one
LARGEST_ANSWER = 64 * 1024  # bytes; the longest answer of ours has a few hundred
LONGEST_PAUSE = 86400.0  # seconds; a server that asks for more is taken at its word once a day

Connection = http.client.HTTPConnection


class Unreachable(Exception):
    """No HTTP answer came back. Nothing is known about what the server did with the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `retry_after` is in seconds from now; the body may be cut."""

    status: int
    retry_after: float | None
    body: bytes

    def word(self, name: str) -> str:
        """A member of the JSON body, if it is a plain word such as `pending`, else nothing."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        value = document.get(name) if isinstance(document, dict) else None
        return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value) else ""


class Transport:
    """The way to one server. Not thread-safe: its owner holds a lock while it posts."""

    def __init__(self, server_url: str, user_agent: str) -> None:
        self._url = urlsplit(server_url)
        self._user_agent = user_agent
        self._connection: Connection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Sends the bytes as JSON and returns the answer, whatever its status, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        reused = self._connection is not None
        try:
            return self._exchange(path, body, headers, deadline)
        except ConnectionError as error:
            # The server may close a kept connection at any moment; a snapshot that arrives twice is stored once.
            if not reused:
                raise Unreachable(_reason(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(_reason(error)) from None
        try:
            return self._exchange(path, body, headers, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(_reason(error)) from None

    def close(self) -> None:
        """Lets go of the connection; the next post opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        # A host that forgets `stop` must not be shown a ResourceWarning for it.
        with contextlib.suppress(Exception):
            self.close()

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        connection, prefix, proxy_headers = self._open()
        whole = False
        try:
            connection.timeout = min(CONNECT_TIMEOUT, _left(deadline))
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(_left(deadline))
            connection.response_class = functools.partial(_TimedResponse, deadline=deadline)  # type: ignore[assignment]
            connection.request(
                "POST",
                prefix + self._url.path + path,
                body,
                {"Content-Type": "application/json", "User-Agent": self._user_agent, **proxy_headers, **headers},
            )
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER)
            whole = response.isclosed()
            return Answer(response.status, _seconds(response.headers.get("Retry-After")), content)
        finally:
            if whole:
                self._connection = connection
            else:
                self._connection = None
                connection.close()

    def _open(self) -> tuple[Connection, str, dict[str, str]]:
        """The connection, what stands before the path, and the headers for a proxy."""
        host, port, secure = self._url.hostname or "", self._url.port, self._url.scheme == "https"
        proxy = _proxy(self._url)
        if proxy is None:
            return self._connection or _connection(host, port, secure=secure), "", {}
        credentials = _credentials(proxy)
        kept = self._connection
        if not secure:
            # A plain request goes to the proxy whole, with the server's address in front of the path.
            connection = kept or _connection(proxy.hostname or "", proxy.port or 80, secure=False)
            return connection, f"http://{self._url.netloc}", credentials
        if kept is None:
            kept = _connection(proxy.hostname or "", proxy.port or 80, secure=True)
            kept.set_tunnel(host, port or 443, credentials)
        return kept, "", {}


class _TimedResponse(http.client.HTTPResponse):
    """Reads under one deadline, so that a server sending a byte every few seconds cannot hold us for ever."""

    def __init__(self, sock: socket.socket, *, deadline: float, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock, deadline))


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError past it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _connection(host: str, port: int | None, *, secure: bool) -> Connection:
    if secure:
        return http.client.HTTPSConnection(host, port, context=_tls())
    return http.client.HTTPConnection(host, port)


@functools.cache
def _tls() -> "SSLContext":
    """One verifying context for all clients of the process: loading the system's certificates takes milliseconds."""
    import ssl

    return ssl.create_default_context()


def _proxy(url: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for this server, None for a direct way.

    A system's own settings are not asked: on macOS that crashes processes that were forked.
    """
    from urllib.request import getproxies_environment, proxy_bypass

    named = getproxies_environment().get(url.scheme)
    if not named or proxy_bypass(url.netloc):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise Unreachable(f"the {url.scheme}_proxy of the environment is no http:// proxy")
    return proxy


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _seconds(header: str | None) -> float | None:
    """A Retry-After header, which holds seconds or a date; None for nonsense."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), LONGEST_PAUSE)
    from email.utils import parsedate_to_datetime

    try:
        pause = parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return min(max(pause, 0.0), LONGEST_PAUSE)


def _reason(error: Exception) -> str:
    """What to tell a person, in the system's own words: an error's text may quote what a stranger sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        if error.strerror:
            return getattr(error, "verify_message", "") or error.strerror
        return "the proxy opens no tunnel" if type(error) is OSError else type(error).__name__
    return f"no HTTP answer ({type(error).__name__})"
