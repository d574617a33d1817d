"""The hourly pass over the repositories of all applications keeps to GitHub's rate limit."""

import time
from collections.abc import Iterator

import pytest

from shm.core.settings import Settings
from shm.server import github_stars
from shm.server.github_stars import GitHubStars
from shm.server.stars_refresher import StarsRefresher
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import execute, select_column
from tests.support.github_api import GitHubApi, github_api

PATHS = ["/repos/example/a", "/repos/example/b", "/repos/example/c"]
FAR = "9999999999"  # a reset in the year 2286
APPLICATIONS = """
    INSERT INTO applications (slug, name, github_url)
    VALUES ('a', 'A', 'https://github.com/example/a'), ('b', 'B', 'https://github.com/example/b'),
        ('c', 'C', 'https://github.com/example/c')
"""


@pytest.fixture
def github() -> Iterator[GitHubApi]:
    """GitHub's API, which knows three repositories."""
    with github_api() as api:
        api.answers |= {path: (200, {"stargazers_count": 5}) for path in PATHS}
        yield api


@pytest.fixture
def background(database: str) -> Iterator[BackgroundJobs]:
    """A database with the applications of these repositories."""
    execute(database, APPLICATIONS)
    with run_background_jobs(database) as jobs:
        yield jobs


def refresher_of(background: BackgroundJobs, github: GitHubApi) -> StarsRefresher:
    """Its client belongs to the event loop in which it is made."""

    async def create() -> StarsRefresher:
        return StarsRefresher(background.database, GitHubStars(Settings.load({"SHM_GITHUB_API": github.url})))

    return background.runner.run(create())


def requested(github: GitHubApi) -> list[str]:
    """The paths of the requests since the last call."""
    paths = [path for path, _ in github.requests]
    github.requests.clear()
    return paths


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": FAR}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9" * 5_000}),
        (403, {"Retry-After": "3600"}),
        (429, {"X-RateLimit-Remaining": "0"}),
        (429, {"Retry-After": "soon"}),
    ],
)
def test_an_exceeded_rate_limit_ends_the_pass(
    background: BackgroundJobs, github: GitHubApi, database: str, status: int, headers: dict[str, str]
) -> None:
    github.answers[PATHS[1]] = status, {"message": "API rate limit exceeded"}
    github.headers |= headers
    refresher = refresher_of(background, github)
    background.runner.run(refresher.refresh_stale())
    assert requested(github) == PATHS[:2]
    assert select_column(database, "SELECT stars FROM applications ORDER BY slug") == [5, 0, 0]
    background.runner.run(refresher.refresh_stale())
    assert requested(github) == []


@pytest.mark.parametrize("headers", [{}, {"X-RateLimit-Remaining": "59", "X-RateLimit-Reset": FAR}])
def test_a_refusal_of_one_repository_does_not_end_the_pass(
    background: BackgroundJobs, github: GitHubApi, headers: dict[str, str]
) -> None:
    github.answers[PATHS[1]] = 403, {"message": "Repository access blocked"}
    github.headers |= headers
    refresher = refresher_of(background, github)
    background.runner.run(refresher.refresh_stale())
    assert requested(github) == PATHS
    background.runner.run(refresher.refresh_stale())
    assert requested(github) == []


def test_the_pass_continues_at_the_reset_of_the_rate_limit(background: BackgroundJobs, github: GitHubApi) -> None:
    reset = int(time.time()) + 2
    github.headers |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
    github.answers[PATHS[0]] = 403, {"message": "API rate limit exceeded"}
    refresher = refresher_of(background, github)
    background.runner.run(refresher.refresh_stale())
    assert requested(github) == PATHS[:1]
    github.answers[PATHS[0]] = 200, {"stargazers_count": 5}
    while not github.requests:
        background.runner.run(refresher.refresh_stale())
    assert time.time() > reset - 0.1
    assert requested(github) == PATHS


def test_no_reset_is_waited_for_longer_than_an_hour(
    background: BackgroundJobs, github: GitHubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clocks of both machines may differ."""
    monkeypatch.setattr(github_stars, "MAX_WAIT_S", 0)
    github.headers |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": FAR}
    github.answers[PATHS[0]] = 403, {"message": "API rate limit exceeded"}
    refresher = refresher_of(background, github)
    for _ in range(2):
        background.runner.run(refresher.refresh_stale())
        assert requested(github) == PATHS[:1]
