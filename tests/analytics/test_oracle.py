"""All KPIs, counts and charts of random fleets equal an oracle that computes them from the raw snapshots.

Hypothesis generates the scenarios. The server computes its values from tallies, refreshes and the series.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import fresh_database
from tests.support.module_server import running_server
from tests.support.oracle import assert_matches_oracle, assert_series_match_oracle
from tests.support.parameters import long_after
from tests.support.random_fleets import Fleet, Scenario, run_scenario, scenarios
from tests.support.server_pool import empty_tables
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

LARGE_EXAMPLES = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EXAMPLE_COUNTS = [
    pytest.param(settings(LARGE_EXAMPLES, max_examples=3, derandomize=True), id="short"),
    pytest.param(settings(LARGE_EXAMPLES, max_examples=500), id="long", marks=pytest.mark.long),
]


@dataclass(frozen=True)
class Environment:
    """A server, its background jobs, which the test runs itself, and its active window."""

    server: ServerProcess
    database: str
    background: BackgroundJobs
    window: timedelta


@pytest.fixture(scope="module", params=long_after(1, [2, 30]), ids=lambda days: f"window of {days} days")
def environment(
    request: pytest.FixtureRequest, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """One server for all scenarios; each starts with an empty database. The short window ends within accepted ages."""
    server_settings = {"SHM_ACTIVE_WINDOW": f"{request.param}d"}
    folder: Path = tmp_path_factory.mktemp("stage")
    with (
        fresh_database(postgres) as dsn,
        run_background_jobs(dsn, **server_settings) as background,
        running_server(folder, dsn, **server_settings) as server,
    ):
        yield Environment(server, dsn, background, timedelta(days=request.param))


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("example_count", EXAMPLE_COUNTS)
def test_every_figure_equals_the_oracle(environment: Environment, example_count: settings) -> None:
    """Current and past values equal the oracle for any scenario."""

    @example_count
    @given(scenario=scenarios)
    def check_scenario(scenario: Scenario) -> None:
        empty_tables(environment.database)
        fleet = Fleet(environment.server, environment.database, datetime.now(UTC), environment.background.run)

        def check_current() -> None:
            assert_matches_oracle(environment.server, environment.database, window=environment.window)

        run_scenario(scenario, fleet, after_time=check_current)
        check_current()
        environment.background.run()
        check_current()
        assert_series_match_oracle(environment.server, environment.database, window=environment.window)
        assert environment.background.differences() == {}

    check_scenario()
