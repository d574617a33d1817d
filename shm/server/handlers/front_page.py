"""`GET /`: what this server is, as a page for a browser and as JSON for a program. It says nothing about the fleet."""

import msgspec

from shm import __version__
from shm.auth.tokens import Role
from shm.server.handlers.base import API_LEVEL, Handler
from shm.server.http.operations import JSON, Operation, operation

HTML = "text/html; charset=utf-8"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class FrontPage(msgspec.Struct):
    """The body of `GET /`. Addresses are relative to it."""

    name: str = "SHM"
    description: str = "Self-Hosted Metrics: takes signed reports of aggregate counters from self-hosted software."
    version: str = __version__
    api_level: int = API_LEVEL
    console: str = "shm console --server ADDRESS"
    documentation: str = "docs/ in the distribution of SHM; docs/quickstart.md is the first page"
    api: str = "api/openapi.json"
    health: str = "api/v1/healthcheck"


PAGE = FrontPage()
DOCUMENT = msgspec.json.encode(PAGE)
MARKUP = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>SHM</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}
code {{ font-family: ui-monospace, monospace }}
</style>
</head>
<body>
<h1>SHM</h1>
<p>This is a server of {PAGE.description}</p>
<p>Its operator opens the console in a terminal, with the address of this page:</p>
<p><code>{PAGE.console}</code></p>
<p>The documentation is in <code>docs/</code> of the distribution of SHM, <code>docs/quickstart.md</code> first;
<code>docs/privacy.md</code> says what an install sends. The API is described in
<a href="{PAGE.api}">{PAGE.api}</a>, and <a href="{PAGE.health}">{PAGE.health}</a> says whether the server is alive.</p>
</body>
</html>
""".encode()


class Front(Handler):
    """`GET /`."""

    @operation("getFrontPage", Role.PUBLIC, media_types=[JSON, HTML])
    async def get(self) -> bytes:
        """A description of the server: a page for a client that accepts HTML, else JSON."""
        self.set_header("Vary", "Accept")
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return MARKUP if self._wants_page() else DOCUMENT

    def choose_media_type(self, declared: Operation) -> str:
        """As the client accepts it."""
        return HTML if self._wants_page() else JSON

    def _wants_page(self) -> bool:
        accepted = [part.partition(";")[0].strip() for part in self.request.headers.get("Accept", "").split(",")]
        return "text/html" in accepted and JSON not in accepted
