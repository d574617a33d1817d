"""Whatever fleets do and however time passes, every figure is what the raw snapshots make it.

Hypothesis writes the stories; the figures come from what is kept by the way: tallies, sweeps and rolled up series.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor, fresh_database
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.random_fleets import Fleet, Story, play, stories
from tests.support.server_process import ServerProcess

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EFFORTS = [
    pytest.param(settings(UNHURRIED, max_examples=15, derandomize=True), id="short"),
    pytest.param(settings(UNHURRIED, max_examples=500), id="long", marks=pytest.mark.long),
]

# What stays when a story is over. The series' cursor stays too, for the feed's never goes back.
STAYING = ["schema_migrations", "tokens", "settings", "feed_head", "series_head"]
FORGET = """
    SELECT format('TRUNCATE %%s', string_agg(oid::regclass::text, ', ')) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> ALL(%s)
"""
BEGIN = """
    UPDATE series_head SET
        cursor = (SELECT cursor FROM feed_head), closed_until = date_trunc('day', now(), 'UTC'),
        hours_since = '-infinity'
"""


@dataclass(frozen=True)
class Stage:
    """A server whose background is the test's own, and its active window."""

    server: ServerProcess
    database: str
    behind: BackgroundJobs
    window: timedelta


@pytest.fixture(scope="module", params=[30, 2], ids=lambda days: f"window of {days} days")
def stage(request: pytest.FixtureRequest, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all stories: each begins with nothing. A short window ends within what a server takes of the past."""
    environment = {"SHM_ACTIVE_WINDOW": f"{request.param}d"}
    folder: Path = tmp_path_factory.mktemp("stage")
    with fresh_database(postgres) as dsn, run_background_jobs(dsn, **environment) as behind:
        server = ServerProcess(folder / "data", {"SHM_DB_DSN": dsn, **environment})
        server.start()
        try:
            yield Stage(server, dsn, behind, timedelta(days=request.param))
        finally:
            server.terminate()


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("effort", EFFORTS)
def test_every_figure_equals_the_oracle(stage: Stage, effort: settings) -> None:
    """Every figure of now and of the past equals the oracle whatever fleets do."""

    @effort
    @given(story=stories)
    def promise(story: Story) -> None:
        with admin_cursor(stage.database) as cursor:
            cursor.execute(FORGET, [STAYING])
            (truncate,) = cursor.fetchone() or ("",)
            cursor.execute(truncate + ";" + BEGIN)
        fleet = Fleet(stage.server, stage.database, datetime.now(UTC), stage.behind.run)

        def hold_now() -> None:
            assert_matches_oracle(stage.server, stage.database, window=stage.window)

        play(story, fleet, after_time=hold_now)
        hold_now()
        stage.behind.run()
        hold_now()
        assert_series_match_oracle(stage.server, stage.database, window=stage.window)
        assert stage.behind.differences() == {}

    promise()
