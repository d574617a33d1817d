"""A client that says in every header who it is, from an address that stands nowhere else; and what is left of it."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2 import sql

ADDRESS = "127.0.0.77"
MARK = "zqx7"
LIMIT_S = 20
QUIET_S = 0.5  # after an answer on a connection that stays open
LARGEST_ANSWER = 1024 * 1024

HEADERS = {
    "Host": f"host-{MARK}.example",
    "User-Agent": f"agent-{MARK}/1.0",
    "Referer": f"https://referer-{MARK}.example/page",
    "X-Forwarded-For": "203.0.113.77",
    "X-Forwarded-Host": f"forwarded-host-{MARK}.example",
    "X-Real-IP": "198.51.100.77",
    "Forwarded": f'for="[2001:db8::77]";host=forwarded-{MARK}.example',
    "From": f"user-{MARK}@example.org",
    "Cookie": f"session=cookie-{MARK}",
    "Authorization": f"Bearer token-{MARK}-0123456789",
    "Connection": "close",
}

# As text, and as the bytes of the addresses are written in hex.
TRACES = (
    *(MARK, ADDRESS, "203.0.113.77", "198.51.100.77", "2001:db8::77"),
    *("7f00004d", "cb00714d", "c633644d", "20010db8000000000000000000000077"),
)

TABLES = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""


class AnonymousClient:
    """Sends requests to a server, each on a connection of its own, and keeps every byte that came back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: list[bytes] = []

    def send(self, raw: bytes, *, half_close: bool = False, enough: int = LARGEST_ANSWER) -> bytes:
        """Sends `raw`; returns what is answered before a silence, the connection's end, or as much as is enough."""
        with socket.create_connection(("127.0.0.1", self._port), LIMIT_S, source_address=(ADDRESS, 0)) as line:
            try:
                line.sendall(raw)
                if half_close:
                    line.shutdown(socket.SHUT_WR)
            except OSError:  # refused before it was out
                pass
            answer = b"".join(_pieces(line, enough))
        self.answers.append(answer)
        return answer

    def request(
        self, line: str, headers: dict[str, str] | None = None, enough: int = LARGEST_ANSWER, body: bytes = b""
    ) -> bytes:
        """Sends one request; `headers` come on top, or replace its own."""
        return self.send(
            _request(line, (headers or {}) | ({"Content-Length": str(len(body))} if body else {})) + body, enough=enough
        )

    @contextmanager
    def open_request(self, line: str, headers: dict[str, str]) -> Iterator[None]:
        """Sends one request, and holds its connection open until the context ends; the answer has begun by then."""
        with socket.create_connection(("127.0.0.1", self._port), LIMIT_S, source_address=(ADDRESS, 0)) as held:
            held.sendall(_request(line, headers))
            self.answers.append(held.recv(LARGEST_ANSWER))
            yield


def _request(line: str, headers: dict[str, str]) -> bytes:
    """Its head; `headers` come on top of ours, or replace them."""
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in (HEADERS | headers).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def with_marker(raw: bytes) -> bytes:
    """A request of the corpus with all headers of this client in place of its Host."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return raw.replace(b"Host: shm.test\r\n", lines.encode(), 1)


def rows_as_text(database: str) -> list[str]:
    """Every row of every table, with all its columns."""
    found: list[str] = []
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        for schema, table in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table)))
            found += [f"{table}: {row[0]}" for row in cursor.fetchall()]
    return found


def _pieces(line: socket.socket, enough: int) -> Iterator[bytes]:
    length = 0
    while length < enough:
        try:
            piece = line.recv(65536)
        except (ConnectionResetError, TimeoutError):
            return
        if not piece:
            return
        line.settimeout(QUIET_S)
        length += len(piece)
        yield piece
