"""Reads the stars of every application's repository again each hour. Only the process with the background jobs does so.

It runs beside those jobs, because an answer of GitHub may take long.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import timedelta

from shm.analytics.applications import ApplicationStore
from shm.core.errors import BadGateway, Conflict, DatabaseUnavailable
from shm.core.logs import RateLimitedLogger, describe_error
from shm.db.database import Database
from shm.server.github_stars import GitHubStars, RateLimitExceeded

rate_limited = RateLimitedLogger(logging.getLogger(__name__))

MAX_AGE = timedelta(hours=1)  # of the stars, as in the original
INTERVAL_S = 60.0  # between two passes
MAX_REPOSITORIES_PER_ROUND = 50  # in one pass: GitHub answers 60 requests an hour without a token
RETRY_S = 3_600.0  # after a repository whose stars GitHub has not returned


@dataclass(frozen=True, slots=True)
class _Repository:
    slug: str
    github_url: str


class StarsRefresher:
    """Refreshes the stars of one database's applications."""

    def __init__(self, database: Database, github: GitHubStars) -> None:
        self._database = database
        self._applications = ApplicationStore(database)
        self._github = github
        self._retry_at: dict[str, float] = {}  # by slug
        self._paused_until = 0.0  # while GitHub's rate limit is exceeded

    async def run(self) -> None:
        """Refreshes again and again, until cancelled. A failure of GitHub is logged once a minute, with its reason."""
        while True:
            try:
                await self.refresh_stale()
            except DatabaseUnavailable as error:
                rate_limited.warning("could not read the applications with a repository", describe_error(error))
            except Exception:  # a failure here must not end the background jobs
                rate_limited.exception("could not refresh the stars")
            await asyncio.sleep(INTERVAL_S)

    async def refresh_stale(self) -> None:
        """One pass, which ends where GitHub's rate limit is exceeded; until its reset, the next ones send nothing."""
        now = time.monotonic()
        if now < self._paused_until:
            return
        self._retry_at = {slug: retry_at for slug, retry_at in self._retry_at.items() if retry_at > now}
        repositories = await self._database.fetch(
            _Repository,
            "applications.select_stale_stars",
            age=MAX_AGE,
            excluded=list(self._retry_at),
            limit=MAX_REPOSITORIES_PER_ROUND,
        )
        for repository in repositories:
            try:
                stars = await self._github.fetch(repository.github_url)
            except RateLimitExceeded as refusal:
                self._paused_until = time.monotonic() + refusal.wait_s
                rate_limited.warning("could not refresh the stars", refusal.detail)
                return
            except (BadGateway, Conflict) as refusal:
                self._retry_at[repository.slug] = now + RETRY_S
                rate_limited.warning("could not refresh the stars of a repository", refusal.detail)
            else:
                await self._applications.set_stars(repository.slug, repository.github_url, stars)
