"""The answers of a real server to a console, recorded once, and a server that gives them again.

Pictures of the console are compared as a whole, so fleet and clock must not move. With an upstream, `replay` is a proxy
that records; without one it has what was recorded. The change feed opens, and then has no changes.
"""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

WRONG_TOKEN = "shm_wrong-token-wrong-token"
KEPT_HEADERS = ("link", "content-type", "x-")  # beginnings of their names


Answer = tuple[int, dict[str, str], str]


@dataclass
class Recording:
    """Answers by path and query: status, headers and body. `date` is the server's clock at the first one.

    `refusal` is the answer to a wrong token. A replay adds `headers` to every answer.
    """

    date: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    refusal: Answer = (401, {}, "")
    missing: list[str] = field(default_factory=list)  # requests of a replay that have no answer
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> "Recording":
        """Of a file that `save` wrote."""
        saved = json.loads(gzip.decompress(file.read_bytes()))
        answers = {path: (status, headers, body) for path, (status, headers, body) in saved["answers"].items()}
        status, headers, body = saved["refusal"]
        return cls(saved["date"], answers, (status, headers, body))

    @property
    def instance_id(self) -> str:
        """The instance in the first row of a list."""
        pages = (json.loads(body) for path, (_, _, body) in self.answers.items() if "/instances?" in path)
        return str(next(page[0]["instance_id"] for page in pages if page))

    def save(self, file: Path) -> None:
        """Writes the file; the same content makes the same bytes."""
        saved = {name: value for name, value in asdict(self).items() if name in ("date", "answers", "refusal")}
        text = json.dumps(saved, sort_keys=True, ensure_ascii=False)
        file.write_bytes(gzip.compress(text.encode(), mtime=0))


def as_answer(response: httpx.Response) -> Answer:
    """What a recording has of a response."""
    headers = {name: value for name, value in response.headers.items() if name.startswith(KEPT_HEADERS)}
    return response.status_code, headers, response.text


class _Feed(WebSocketHandler):
    async def open(self, *_: str) -> None:
        since = int(self.get_query_argument("since"))
        await self.write_message(json.dumps({"type": "hello", "cursor": since, "heartbeat_s": 15}))


class _Api(RequestHandler):
    def initialize(self, recording: Recording, upstream: httpx.AsyncClient | None) -> None:
        self.recording, self.upstream = recording, upstream

    async def get(self) -> None:
        path = self.request.uri or ""
        if self.upstream is not None and path not in self.recording.answers:
            response = await self.upstream.get(path, headers={"Authorization": self.request.headers["Authorization"]})
            self.recording.date = self.recording.date or response.headers["Date"]
            self.recording.answers[path] = as_answer(response)
        is_refused = WRONG_TOKEN in self.request.headers["Authorization"]
        if not is_refused and path not in self.recording.answers:
            self.recording.missing.append(path)
            self.send_error(404)
            return
        status, headers, body = self.recording.refusal if is_refused else self.recording.answers[path]
        self.set_status(status)
        for name, value in (headers | self.recording.headers).items():
            self.set_header(name, value)
        self.set_header("Date", self.recording.date)
        self.finish(body)


@asynccontextmanager
async def replay(recording: Recording, upstream: str = "") -> AsyncIterator[str]:
    """The URL of a server with these answers. It records further ones from `upstream`, if there is one."""
    client = httpx.AsyncClient(base_url=upstream, timeout=60) if upstream else None
    routes = [(r".*/feed", _Feed), (r".*", _Api, {"recording": recording, "upstream": client})]
    server = HTTPServer(Application(routes))  # type: ignore[arg-type] # Tornado's type of routes is too narrow
    socket, port = bind_unused_port()
    server.add_socket(socket)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()
        if client is not None:
            await client.aclose()
