"""Check of the programs of `shm backup`: whether this machine has those of the database's version."""

from shm.db.backup import find_backup_problem, read_database
from shm.db.database import Database
from shm.server.checks.finding import Finding, Level

SUBJECT = "backup"


async def check_backup(database: Database) -> Finding:
    """Searches for pg_dump and starts it, so a start of the server does without. Raises as `read_database`."""
    state = await read_database(database)
    problem = find_backup_problem(state)
    if problem:
        return Finding(Level.NOTE, SUBJECT, "`shm backup` does not work on this machine", problem)
    return Finding(Level.OK, SUBJECT, f"`shm backup` has pg_dump of PostgreSQL {state.major}")
