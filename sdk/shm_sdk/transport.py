"""POST over one persistent connection, with a limit for every wait and every size.

Redirects are not followed, except from http to https on the same host. Certificates are verified, and proxies are read
from the environment. Every failure raises TransportError, with a reason that can be logged.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from ssl import SSLCertVerificationError
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from shm_sdk.certificates import NoAuthoritiesError
from shm_sdk.clock import get_clock
from shm_sdk.http_messages import Head, InvalidResponseError, ResponseReader, encode_request, parse_date
from shm_sdk.network import DeadlineSocket, Resolver, TunnelRefusedError, connect, open_tunnel, to_ascii
from shm_sdk.proxies import UnsupportedProxyError, find_proxy, proxy_headers

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_RESPONSE_BYTES = 64 * 1024  # the longest response to a report has a few thousand
MAX_RETRY_AFTER_S = 86400.0  # a longer Retry-After is shortened to one request a day


class TransportError(Exception):
    """No HTTP response arrived. The server may or may not have processed the request."""


SIGNATURE_CODES = ("bad_instance_id", "bad_signature")  # of refusals with 403 that say nothing on what is stored


class Response(NamedTuple):
    """An HTTP response. `retry_after` is in seconds from now. The body is cut at the transport's limit."""

    status: int
    retry_after: float | None
    body: bytes
    date: datetime | None = None  # the server's clock, by its Date header

    @property
    def is_unknown_instance(self) -> bool:
        """Whether the server does not know the install, or has deleted it. A bad signature is refused with 403 too."""
        if self.status == 403:
            return self.json_identifier("code") not in SIGNATURE_CODES
        return self.status == 404

    def json_identifier(self, name: str) -> str:
        """A member of the JSON body if it is an identifier such as `pending`, else an empty string."""
        value = self._json_string(name)
        return value if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value) else ""

    def json_timestamp(self, name: str) -> datetime | None:
        """A member of the JSON body if it is a time with an offset, else None."""
        try:
            value = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", self._json_string(name)))
            return value.astimezone(timezone.utc) if value.tzinfo else None
        except (ValueError, OverflowError):
            return None

    @property
    def is_json_object(self) -> bool:
        """Whether the body is a JSON object."""
        return self._parse() is not None

    def json_object(self) -> dict[str, object]:
        """The body if it is a JSON object, else an empty one."""
        return self._parse() or {}

    def _parse(self) -> dict[str, object] | None:
        try:
            document = json.loads(self.body.decode())  # of bytes, it would import the codec that they look like
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def _json_string(self, name: str) -> str:
        value = self.json_object().get(name)
        return value if isinstance(value, str) else ""


class _UpgradeRequiredError(Exception):
    """The server redirects from http to https on the same host, and the request has to be sent there."""


class Transport:
    """The connection to one server. Not thread-safe: the owner holds a lock during `post` and `close`."""

    def __init__(self, server_url: str, user_agent: str, max_response_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._url = urlsplit(server_url)
        self._user_agent = user_agent
        self._max_response_bytes = max_response_bytes
        self._resolver = Resolver()
        self._connection: DeadlineSocket | None = None
        self._needs_all_authorities = False  # those of the system's directory have not verified the server

    def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Response:
        """Sends a JSON body and returns the response of any status within `timeout` seconds. Raises TransportError."""
        deadline = time.monotonic() + timeout
        is_reused = self._connection is not None
        try:
            return self._send(path, body, headers, deadline)
        except _UpgradeRequiredError:
            self.close()
        except ConnectionError as error:
            # The server may close an idle connection at any time. A retry is safe: a repeated snapshot is stored once.
            if not is_reused:
                raise TransportError(_describe_error(error)) from None
        except (OSError, InvalidResponseError, ValueError) as error:
            raise TransportError(_describe_error(error)) from None
        try:
            return self._send(path, body, headers, deadline)
        except (OSError, InvalidResponseError, ValueError) as error:
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
        proxy = find_proxy(self._url, os.environ)
        connection, self._connection = self._connection, None
        is_reusable = False
        if connection is None:
            connection = self._connect(proxy, deadline)
        try:
            connection.deadline = deadline
            prefix, headers_for_proxy = "", {}
            if proxy is not None and self._url.scheme == "http":
                # A proxy expects the absolute URL of a plain HTTP request.
                prefix, headers_for_proxy = f"http://{self._host}", proxy_headers(proxy)
            all_headers = {
                "Host": self._host,
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "User-Agent": self._user_agent,
                **headers_for_proxy,
                **headers,
            }
            connection.sendall(encode_request("POST", prefix + self._url.path + path, all_headers.items(), body))
            reader = ResponseReader(connection.receive)
            head = reader.read_head()
            content = reader.read_body(head, self._max_response_bytes)
            is_reusable = reader.is_complete
            if (upgraded := self._upgraded_url(head)) is not None:
                self._url = upgraded
                raise _UpgradeRequiredError
            date = parse_date(head.headers.get("date"))
            return Response(head.status, _parse_retry_after(head.headers.get("retry-after"), date), content, date)
        finally:
            if is_reusable:
                self._connection = connection
            else:
                connection.close()

    @property
    def _host(self) -> str:
        """The server's name and, unless it is the usual one, its port, as in a URL."""
        name, port = to_ascii(self._url.hostname or "").decode(), self._url.port
        name = f"[{name}]" if ":" in name else name
        return name if port in (None, DEFAULT_PORTS[self._url.scheme]) else f"{name}:{port}"

    def _upgraded_url(self, response: Head) -> SplitResult | None:
        """The server's URL with https, if that is all that a redirect changes."""
        location = response.headers.get("location", "")
        if self._url.scheme != "http" or not 300 <= response.status < 400:
            return None
        try:
            target = urlsplit(location)
            if target.scheme != "https" or target.hostname != self._url.hostname:
                return None
            netloc = self._url.hostname or ""
            netloc = f"[{netloc}]" if ":" in netloc else netloc
            return self._url._replace(scheme="https", netloc=f"{netloc}:{target.port}" if target.port else netloc)
        except ValueError:
            return None

    def _connect(self, proxy: SplitResult | None, deadline: float) -> DeadlineSocket:
        """A connection to the server, through the proxy if there is one."""
        is_secure = self._url.scheme == "https"
        host, port = self._url.hostname or "", self._url.port or DEFAULT_PORTS[self._url.scheme]
        if proxy is None:
            connected = connect(self._resolver, host, port, deadline)
        else:
            connected = connect(self._resolver, proxy.hostname or "", proxy.port or 80, deadline)
        try:
            if is_secure:
                if proxy is not None:
                    open_tunnel(connected, host, port, proxy_headers(proxy))
                connected.start_tls(host, with_all_authorities=self._needs_all_authorities)
        except BaseException as error:
            connected.close()
            if isinstance(error, SSLCertVerificationError) and not self._needs_all_authorities:
                self._needs_all_authorities = True
                return self._connect(proxy, deadline)
            raise
        return connected


def _parse_retry_after(header: str | None, server_time: datetime | None) -> float | None:
    """A Retry-After header (seconds, or a date by the server's clock) as seconds from now; None if it is invalid."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_S)
    date = parse_date(header)
    if date is None:
        return None
    return min(max((date - (server_time or get_clock().now())).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _describe_error(error: Exception) -> str:
    """A reason for a person, in the system's words only: an exception's text may quote what the server sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, TunnelRefusedError | UnsupportedProxyError | NoAuthoritiesError):
        return str(error)
    if isinstance(error, OSError):
        if error.strerror:
            return getattr(error, "verify_message", "") or error.strerror
        return type(error).__name__
    return f"no valid HTTP response: {error}" if isinstance(error, InvalidResponseError) else "no valid address"
