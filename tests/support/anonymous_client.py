"""A client with identifying values in all headers and its own address, and functions that search for those values."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2 import sql

ADDRESS = "127.0.0.77"
MARKER = "zqx7"
TIMEOUT_S = 60
IDLE_TIMEOUT_S = 0.5  # ends the response on a connection that stays open
MAX_RESPONSE_BYTES = 1024 * 1024

HEADERS = {
    "Host": f"host-{MARKER}.example",
    "User-Agent": f"agent-{MARKER}/1.0",
    "Referer": f"https://referer-{MARKER}.example/page",
    "X-Forwarded-For": "203.0.113.77",
    "X-Forwarded-Host": f"forwarded-host-{MARKER}.example",
    "X-Real-IP": "198.51.100.77",
    "Forwarded": f'for="[2001:db8::77]";host=forwarded-{MARKER}.example',
    "From": f"user-{MARKER}@example.org",
    "Cookie": f"session=cookie-{MARKER}",
    "Authorization": f"Bearer token-{MARKER}-0123456789",
    "Connection": "close",
}

# As text, and the bytes of the addresses in hex.
TRACES = (
    *(MARKER, ADDRESS, "203.0.113.77", "198.51.100.77", "2001:db8::77"),
    *("7f00004d", "cb00714d", "c633644d", "20010db8000000000000000000000077"),
)

TABLES = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""


class AnonymousClient:
    """Sends each request on a new connection, and stores all bytes of the responses."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.responses: list[bytes] = []

    def send(self, raw: bytes, *, half_close: bool = False, max_bytes: int = MAX_RESPONSE_BYTES) -> bytes:
        """Sends `raw`. Returns the response up to `max_bytes`, the end of the connection or a pause."""
        with socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S, source_address=(ADDRESS, 0)) as connection:
            try:
                connection.sendall(raw)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:  # the server closed the connection before it had received everything
                pass
            response = b"".join(_read_chunks(connection, max_bytes))
        self.responses.append(response)
        return response

    def request(
        self, line: str, headers: dict[str, str] | None = None, max_bytes: int = MAX_RESPONSE_BYTES, body: bytes = b""
    ) -> bytes:
        """Sends one request; `headers` are added to `HEADERS` or replace them."""
        return self.send(
            _request(line, (headers or {}) | ({"Content-Length": str(len(body))} if body else {})) + body,
            max_bytes=max_bytes,
        )

    @contextmanager
    def open_request(self, line: str, headers: dict[str, str]) -> Iterator[None]:
        """Sends one request, reads the start of the response and keeps the connection open during the context."""
        with socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S, source_address=(ADDRESS, 0)) as connection:
            connection.sendall(_request(line, headers))
            self.responses.append(connection.recv(MAX_RESPONSE_BYTES))
            yield


def _request(line: str, headers: dict[str, str]) -> bytes:
    """The request line and headers; `headers` are added to `HEADERS` or replace them."""
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in (HEADERS | headers).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def with_marker(raw: bytes) -> bytes:
    """A request of the corpus in which the headers of this client replace the Host header."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return raw.replace(b"Host: shm.test\r\n", lines.encode(), 1)


def rows_as_text(database: str) -> list[str]:
    """All rows of all tables, each as one text."""
    found: list[str] = []
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        for schema, table in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table)))
            found += [f"{table}: {row[0]}" for row in cursor.fetchall()]
    return found


def _read_chunks(connection: socket.socket, max_bytes: int) -> Iterator[bytes]:
    length = 0
    while length < max_bytes:
        try:
            chunk = connection.recv(65536)
        except (ConnectionResetError, TimeoutError):
            return
        if not chunk:
            return
        connection.settimeout(IDLE_TIMEOUT_S)
        length += len(chunk)
        yield chunk
