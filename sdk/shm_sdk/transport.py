"""POST over one persistent connection, with a limit for every wait and every size.

Redirects are not followed, except from http to https on the same host. Certificates are verified, and proxies are read
from the environment. Every failure raises TransportError, with a reason that can be logged.
"""

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from ssl import SSLCertVerificationError
from typing import NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from shm_sdk.certificates import NoAuthoritiesError
from shm_sdk.network import DeadlineSocket, Resolver, TunnelRefusedError, connect, open_tunnel
from shm_sdk.proxies import UnsupportedProxyError, find_proxy, proxy_headers

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
        self._connection: http.client.HTTPConnection | None = None
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
        proxy = find_proxy(self._url, os.environ)
        connection, self._connection = self._connection, None
        is_reusable = False
        if connection is None:
            connection = self._connect(proxy, deadline)
        try:
            cast("DeadlineSocket", connection.sock).deadline = deadline
            prefix, headers_for_proxy = "", {}
            if proxy is not None and self._url.scheme == "http":
                # A proxy expects the absolute URL of a plain HTTP request.
                prefix, headers_for_proxy = f"http://{self._url.netloc}", proxy_headers(proxy)
            connection.request(
                "POST",
                prefix + self._url.path + path,
                body,
                {"Content-Type": "application/json", "User-Agent": self._user_agent, **headers_for_proxy, **headers},
            )
            response = connection.getresponse()
            content = response.read(self._max_response_bytes)
            is_reusable = response.isclosed() and connection.sock is not None
            if (upgraded := self._upgraded_url(response)) is not None:
                self._url = upgraded
                raise _UpgradeRequiredError
            retry_after = _parse_retry_after(response.headers.get("Retry-After"))
            return Response(response.status, retry_after, content, _parse_date(response.headers.get("Date")))
        finally:
            if is_reusable:
                self._connection = connection
            else:
                connection.close()

    def _upgraded_url(self, response: http.client.HTTPResponse) -> SplitResult | None:
        """The server's URL with https, if that is all that a redirect changes."""
        location = response.headers.get("Location", "")
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

    def _connect(self, proxy: SplitResult | None, deadline: float) -> http.client.HTTPConnection:
        """A connection to the server, through the proxy if there is one."""
        is_secure = self._url.scheme == "https"
        host, port = self._url.hostname or "", self._url.port or (443 if is_secure else 80)
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
        connection = (_SecureConnection if is_secure else http.client.HTTPConnection)(host, port)
        connection.sock = connected
        return connection


class _SecureConnection(http.client.HTTPConnection):
    """Writes requests and parses responses on a connection that is encrypted already."""

    default_port = http.client.HTTPS_PORT  # is not repeated in the Host header


def _parse_retry_after(header: str | None) -> float | None:
    """A Retry-After header (seconds or a date) as seconds from now; None if it is invalid."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_S)
    date = _parse_date(header)
    return None if date is None else min(max(date.timestamp() - time.time(), 0.0), MAX_RETRY_AFTER_S)


def _parse_date(header: str | None) -> datetime | None:
    """The time of a header, None if it is not a valid date of HTTP."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(header or "").astimezone(timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return None


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
    return f"no valid HTTP response ({type(error).__name__})"
