"""Reads the number of a repository's stars from GitHub's API. The only request that the server sends by itself.

It is sent when an admin asks for it, and every hour for applications whose `github_url` an admin has set. It contains
nothing but the repository's name and `GITHUB_TOKEN`.
"""

import re
import time
from typing import Annotated

import msgspec
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.iostream import UnsatisfiableReadError

from shm.core.errors import BadGateway, Conflict
from shm.core.settings import Settings

REPOSITORY = re.compile(r"https://(?:www\.)?github\.com/([A-Za-z0-9-]{1,39})/([A-Za-z0-9_.-]{1,100}?)(?:\.git)?/?")
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 10.0
MAX_ANSWER = 1024 * 1024  # bytes; the description of a repository has some 7 KiB
MAX_STARS = 2**31 - 1  # that the database can store
MAX_WAIT_S = 3_600  # for the reset of the rate limit, which GitHub counts by the hour
WAIT_S = 60  # if GitHub does not say when it accepts requests again
REDIRECTS = (301, 302, 307, 308)  # of a repository that was renamed


# What Tornado raises for an answer that is no HTTP, is larger than a limit, or leads to no address.
UNREADABLE = (HTTPClientError, OSError, UnsatisfiableReadError, ValueError)


class _Repository(msgspec.Struct):
    stargazers_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_STARS)]


_decoder = msgspec.json.Decoder(_Repository)


class RateLimitExceeded(BadGateway):
    """GitHub accepts no request for a time, whatever the repository."""

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__("github_refused", detail)
        self.wait_s = wait_s


class GitHubStars:
    """A client of GitHub's API."""

    def __init__(self, settings: Settings) -> None:
        self._api = settings.github_api
        self._token = settings.github_token
        self._client = AsyncHTTPClient(force_instance=True, max_body_size=MAX_ANSWER)

    async def fetch(self, github_url: str | None) -> int:
        """The stars of a repository. Raises Conflict without one, and BadGateway if GitHub does not tell them.

        It is a RateLimitExceeded if other repositories would be refused too.
        """
        match = REPOSITORY.fullmatch(github_url or "")
        if match is None or match[2] in {".", ".."}:
            raise Conflict(
                "no_repository", "github_url of this application is not https://github.com/OWNER/REPOSITORY."
            )
        try:
            response = await self._get(f"{self._api}/repos/{match[1]}/{match[2]}")
            location = response.headers.get("Location", "")
            if response.code in REDIRECTS and location.startswith(f"{self._api}/"):  # the token goes nowhere else
                response = await self._get(location)
        except UNREADABLE:
            raise BadGateway("github_unreachable", "GitHub's API does not answer; the stars are unchanged.") from None
        try:
            if response.code == 200:
                return _decoder.decode(response.body).stargazers_count
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        if (wait_s := _wait_s(response)) is not None:
            raise RateLimitExceeded(_explain(response), wait_s)
        raise BadGateway("github_refused", _explain(response))

    async def _get(self, url: str) -> HTTPResponse:
        headers = {"Accept": "application/vnd.github+json", "User-Agent": "shm"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return await self._client.fetch(
            url,
            raise_error=False,
            headers=headers,
            follow_redirects=False,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=REQUEST_TIMEOUT_S,
        )


def _wait_s(response: HTTPResponse) -> float | None:
    """The time until GitHub accepts requests again; None if it refused this one alone."""
    if response.code not in {403, 429}:
        return None
    retry_after, remaining, reset = (
        int(value) if re.fullmatch(r"[0-9]{1,12}", value := response.headers.get(name, "").strip()) else None
        for name in ("Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    )
    if retry_after is not None:
        return min(retry_after, MAX_WAIT_S)
    if remaining == 0 and reset is not None:
        return min(max(0.0, reset - time.time()), MAX_WAIT_S)
    return WAIT_S if remaining == 0 or response.code == 429 else None


def _explain(response: HTTPResponse) -> str:
    reason = {
        401: "it does not accept GITHUB_TOKEN",
        403: "its rate limit is exceeded; GITHUB_TOKEN raises it",
        404: "it knows no such public repository",
        429: "its rate limit is exceeded; GITHUB_TOKEN raises it",
    }.get(response.code, "the answer has no number of stars")
    return f"GitHub's API answered {response.code}: {reason}. The stars are unchanged."
