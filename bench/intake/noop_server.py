"""The baseline: the same Tornado with the same options, which answers 202 without reading the body.

`python -m bench.intake.noop_server PORT`: one process; several may share the port.
"""

import asyncio
import sys

import tornado.httpserver
import tornado.netutil
import tornado.web

from shm.core.settings import Settings
from shm.core.settings.parsers import MAX_HEADERS_BYTES
from shm.server.http.dispatcher import MAX_BODY_BYTES


class SnapshotHandler(tornado.web.RequestHandler):
    """Accepts every request."""

    def post(self) -> None:
        """202, with a response as long as the server's."""
        self.set_status(202)
        self.set_header("Content-Type", "application/json")
        self.finish(b'{"status":"ok","message":"Snapshot received"}')


async def _serve(port: int) -> None:
    settings = Settings()
    server = tornado.httpserver.HTTPServer(
        tornado.web.Application([("/v1/snapshot", SnapshotHandler)], log_function=lambda _: None),
        max_header_size=MAX_HEADERS_BYTES,
        max_body_size=MAX_BODY_BYTES,
        body_timeout=settings.body_timeout.total_seconds(),
        idle_connection_timeout=settings.idle_timeout.total_seconds(),
    )
    server.add_sockets(tornado.netutil.bind_sockets(port, "127.0.0.1", reuse_port=True))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
