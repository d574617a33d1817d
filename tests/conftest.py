"""Fixtures: one PostgreSQL for the session, a database for each test, server processes."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from psycopg2.extensions import make_dsn

from shm.db.embedded.postgres import EmbeddedPostgres
from tests.support import citus, plain_http
from tests.support.cluster_template import create_data_dir
from tests.support.databases import (
    TEMPLATE,
    admin_cursor,
    copy_database,
    create_database,
    create_weeks,
    fresh_database,
    memory_folder,
    migrate,
    superuser_cursor,
)
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_pool import PooledServer, ServerPool
from tests.support.server_process import WORKER, WORKERS, ServerProcess
from tests.support.shared_servers import HonestInstalls, SeededServer, ServerWithDatabase

# A busy machine is no fault of the code under test. A test that suppresses a further check has to name both.
settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")

# A shell starts its background jobs with SIGINT ignored, and `nohup` its command with SIGHUP ignored. The programs
# under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A console draws as rarely as over SSH: frames take half of its CPU time. Textual reads this when it is imported.
os.environ["TEXTUAL_FPS"] = "15"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skips files of long tests if these are deselected: Schemathesis takes seconds to collect one."""
    return True if collection_path.name.endswith("_long.py") and config.option.markexpr == "not long" else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """With several workers, each imports its share of the test modules before it collects all of them.

    pytest keeps the bytecode of a module whose assertions it has rewritten. Without shares, all workers of a first run
    would rewrite all modules at once, for some seconds of CPU time each. Collection reports an import that failed.
    """
    is_whole_suite = [Path(argument).name for argument in session.config.args] == [
        Path(path).name for path in session.config.getini("testpaths")
    ]
    if WORKERS > 1 and "PYTEST_XDIST_WORKER" in os.environ and is_whole_suite:
        for file in sorted(Path(__file__).parent.rglob("test_*.py"))[WORKER::WORKERS]:
            if not file.stem.endswith("_long"):
                with suppress(Exception):
                    import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With TEST_CITUS_DSN only the tests marked `cluster` run."""
    if citus.DSN:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("cluster") is None])
        items[:] = [item for item in items if item.get_closest_marker("cluster") is not None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the number of tests that have not run on Citus."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    marked = {report.nodeid for report in reports if "cluster" in report.keywords}
    if marked and not citus.DSN:
        terminalreporter.write_line(
            f"{len(marked)} tests marked `cluster` ran on one PostgreSQL, not on Citus: TEST_CITUS_DSN is not set"
        )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes environment variables that change the behaviour of the programs under test."""
    for name in [name for name in os.environ if name.startswith("SHM_")]:
        monkeypatch.delenv(name)
    for name in ("DATABASE_URL", "PORT", "DO_NOT_TRACK", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def postgres_dir() -> Iterator[Path]:
    """A directory for an embedded PostgreSQL. PostgreSQL's user may have no access to the directories of pytest."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a PostgreSQL for the session, with a migrated template database, as a role without other privileges.

    fsync is off. Tests of durability start their own embedded PostgreSQL. With TEST_CITUS_DSN it is the cluster's
    coordinator, and the template's snapshots are distributed.
    """
    if citus.DSN:
        citus.drop_database(TEMPLATE)
        template = create_database(citus.DSN, TEMPLATE)
        migrate(template)
        create_weeks(template)
        citus.distribute(template)
        citus.close_connections(TEMPLATE)
        yield citus.DSN
        citus.drop_database(TEMPLATE)
        return
    with (
        tempfile.TemporaryDirectory(prefix="shm-tests-", dir=memory_folder()) as folder,
        EmbeddedPostgres(create_data_dir(Path(folder))).running() as dsn,
    ):
        with superuser_cursor(dsn) as cursor:
            for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'"):
                cursor.execute(f"ALTER SYSTEM SET {setting}")
            cursor.execute("SELECT pg_reload_conf()")
        copy_database(make_dsn(dsn, dbname="template1"), "postgres", TEMPLATE)
        yield dsn


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres: str) -> Iterator[str]:
    """The DSN of a migrated database without data: that of `server`, or a fresh one."""
    if uses_pool(request):
        yield request.getfixturevalue("pooled_server").database
        return
    with fresh_database(postgres) as dsn:
        yield dsn


def uses_pool(request: pytest.FixtureRequest) -> bool:
    """Whether a test has a server that others use too: with the fixture `server` of this file, unless it starts others.

    A test that runs background jobs itself needs a server that starts after them.
    """
    names = set(request.fixturenames)
    return "running_server" in names and not names & {"serve", "background"} and not citus.DSN


@pytest.fixture(scope="session")
def server_pool(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPool]:
    """The servers that tests use one after the other."""
    pool = ServerPool(postgres, tmp_path_factory.mktemp("pool"))
    yield pool
    pool.end()


@pytest.fixture
def pooled_server(server_pool: ServerPool) -> Iterator[PooledServer]:
    """A server of the pool, for one test."""
    yield server_pool.take()
    server_pool.give_back()


@pytest.fixture
def serve(database: str, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts `shm serve` processes on the test's database and terminates them after the test."""
    started: list[ServerProcess] = []
    numbers = count()

    def start(**environment: str) -> ServerProcess:
        data_dir = tmp_path / f"server{next(numbers)}"
        server = ServerProcess(data_dir, {"SHM_DB_DSN": database, **environment})
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.terminate()


@pytest.fixture
def running_server(request: pytest.FixtureRequest) -> ServerProcess:
    """A server of the pool; one of its own for a test that starts others on its database."""
    if uses_pool(request):
        pooled: PooledServer = request.getfixturevalue("pooled_server")
        return pooled.server
    serve: Callable[..., ServerProcess] = request.getfixturevalue("serve")
    return serve()


@pytest.fixture
def server(running_server: ServerProcess) -> ServerProcess:
    """One `shm serve` process with an empty database, which may have served other tests before."""
    return running_server


@pytest.fixture(scope="session")
def shared_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that share a server and its database."""
    with module_server(postgres, tmp_path_factory.mktemp("running")) as (server, _):
        yield server


@pytest.fixture(scope="module")
def target(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithDatabase]:
    """A server for the tests of a module, with its own database. It accepts snapshots of any age."""
    with module_server(
        postgres, tmp_path_factory.mktemp("target"), SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d"
    ) as (server, dsn):
        yield ServerWithDatabase(server, dsn)


@pytest.fixture(scope="module")
def seeded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededServer]:
    """A server for the tests of a module, with its own database and instances of each status."""
    with module_server(postgres, tmp_path_factory.mktemp("seeded")) as (server, _):
        one = Install(server.url).enroll({"invoices": 3, "mail": {"sent": 1.5}, "beta": True, "locale": "fr"})
        Install(server.url, app_name="Kiosk").enroll({"list": [None]}, ago=timedelta(days=1))
        revoked = Install(server.url, app_name="Kiosk").enroll()
        revoke = f"{server.url}/api/v1/admin/instances/{revoked.instance_id}/revoke"
        plain_http.post(revoke, headers=server.headers).raise_for_status()
        Install(server.url).register()
        body = {"name": "a script", "role": "viewer"}
        token = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers).json()
        known = {"slug": "ledger", "app": "Ledger", "key": "n", "instance_id": one.instance_id}
        yield SeededServer(server, known | {"token_id": token["id"]})


@pytest.fixture(scope="module")
def honest_installs(target: ServerWithDatabase) -> Iterator[HonestInstalls]:
    """Two honest installs for the tests of a module."""
    with admin_cursor(target.database) as cursor:
        yield HonestInstalls(Install(target.server.url).enroll(), Install(target.server.url).enroll(), cursor)


@pytest.fixture
def install(target: ServerWithDatabase) -> Install:
    """The hostile install: registered, active and without a stored snapshot."""
    install = Install(target.server.url)
    assert install.register().status_code == 201
    assert install.activate().status_code == 200
    return install
