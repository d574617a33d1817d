"""Closes connections whose TLS handshake was cancelled: httpcore closes only those whose handshake failed."""

from typing import Any


class HandshakeTrace:
    """The `trace` extension of one request of httpx, which calls it for each step."""

    def __init__(self) -> None:
        self._stream: Any = None  # httpcore's stream of the new connection

    async def __call__(self, step: str, details: dict[str, Any]) -> None:
        """Remembers the connection, and closes it when the handshake ends with an exception."""
        if step == "connection.connect_tcp.complete":
            self._stream = details["return_value"]
        elif step == "connection.start_tls.failed" and self._stream is not None:
            await self._stream.aclose()
