"""A seeded fleet in a data directory of its own, for a server that starts afterwards."""

from pathlib import Path

from psycopg2.extensions import make_dsn

from bench.read.seeded_fleet import SeededFleet, open_cursor, seed_fleet
from bench.support.server import run_server
from shm.db.embedded.postgres import EmbeddedPostgres
from shm.db.embedded.role import ROLE, SUPERUSER


def seed_embedded(data_dir: Path, fleet: SeededFleet) -> dict[str, float]:
    """Creates the data directory, and inserts the fleet; returns the seconds of each step."""
    with run_server(data_dir, 1):
        pass  # creates the schema
    with EmbeddedPostgres(data_dir).running() as dsn:
        with open_cursor(make_dsn(dsn, user=SUPERUSER)) as cursor:
            cursor.execute(f"GRANT pg_checkpoint TO {ROLE}")
        return seed_fleet(dsn, fleet)
