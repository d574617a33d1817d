"""The limit of requests that are not authenticated: those without a valid token, and refused ones of installs.

An address has a budget of them. Beyond it each answer is delayed: the connection sends no other request meanwhile, and
an address has few connections.
"""

import asyncio
import random
from functools import cached_property
from typing import cast

from tornado import httputil
from tornado.http1connection import HTTP1Connection

from shm.core.errors import TooManyRequests
from shm.server.http.stream import Stream
from shm.server.services import Services

DELAY_S = 0.5, 1.5  # at random, so that delayed answers do not all come at the same moment


class UnauthenticatedLimit:
    """The limit for one request: its address, and whether it has taken from the budget of that."""

    def __init__(self, services: Services, connection: HTTP1Connection, headers: httputil.HTTPHeaders) -> None:
        self._limiter = services.rate_limiter
        self._stream = cast(Stream, connection.stream)
        self._peer: str = connection.context.remote_ip  # type: ignore[attr-defined]  # set by Tornado's HTTPServer
        self._forwarded = headers.get_list("X-Forwarded-For")
        self._has_taken = False

    @cached_property
    def address(self) -> bytes | None:
        """The client's address as a keyed hash; None if no limit of addresses applies."""
        if not self._forwarded:  # then it is the peer's, which was hashed for the connection
            return self._stream.address if self._limiter.enabled else None
        return self._limiter.rate_limit_address(self._peer, self._forwarded)

    def take(self) -> TooManyRequests | None:
        """Takes from the budget of the address, once for a request. Returns the refusal if the budget is empty."""
        if self._has_taken:
            return None
        self._has_taken = True
        return self._limiter.take_unauthenticated(self.address)

    async def delay(self, *, is_body_awaited: bool) -> bool:
        """Waits before the answer to a request beyond the budget. Returns whether the connection is still open.

        A new connection may replace this one meanwhile. `is_body_awaited`: the body of the request is not complete.
        """
        stream = self._stream
        stream.has_head_begun = False
        stream.connections.expect_request(stream)
        await asyncio.sleep(random.uniform(*DELAY_S))  # noqa: S311 - it spreads the load
        stream.connections.head_complete(stream)
        if not is_body_awaited:
            stream.connections.request_complete(stream)
        return not stream.closed()
