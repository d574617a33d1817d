"""One request of httpx, which can be cancelled at any moment and leaves no connection open then.

httpcore closes connections within shields of anyio. These hold off a cancellation of anyio's, but none of asyncio's:
`Task.cancel` ends the closing too, and a connection stays open, or keeps a place in the pool for ever.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

from .httpx_without_cli import httpx


class HttpRequest:
    """A request as a task of its own, which only `cancel` ends early. With a client that is closed it returns None."""

    def __init__(self, http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, object] | None) -> None:
        self._scope = CancelScope()
        self._connection = _UnusedConnection()
        self.task = asyncio.create_task(self._run(http, method, path, body))

    def cancel(self) -> None:
        """Ends the request within a few iterations of the loop. Its task then returns None."""
        self._scope.cancel()

    async def _run(
        self, http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, object] | None
    ) -> httpx.Response | None:
        with self._scope:
            if http.is_closed:
                return None
            try:
                return await http.request(method, path, json=body, extensions={"trace": self._connection})
            except httpx.HTTPError:
                if not self._scope.cancel_called:  # no caller waits for it any more
                    raise
            finally:
                await self._connection.aclose()
        return None


class _UnusedConnection:
    """The `trace` extension of one request of httpx, which calls it for each step.

    httpcore closes no connection that is cancelled during its TLS handshake, or between its making and its first use.
    """

    def __init__(self) -> None:
        self._stream: Any = None  # httpcore's stream of a connection that has sent no request yet

    async def __call__(self, step: str, details: dict[str, Any]) -> None:
        """Remembers a new connection until its request is sent: from then on httpcore closes it."""
        if step in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = details["return_value"]
            await checkpoint_if_cancelled()  # after this step the connection would keep its place in the pool
        elif step == "http11.send_request_headers.started":
            self._stream = None

    async def aclose(self) -> None:
        """Closes the connection unless a request was sent on it."""
        if self._stream is not None:
            await self._stream.aclose()
