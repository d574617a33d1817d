"""PostgreSQL's advisory locks: their numbers, what they protect, and the order in which they are acquired.

SQL refers to a lock by name, `pg_advisory_xact_lock({writers_lock})`; `shm.db.statements` inserts the number. A
transaction or session that acquires several locks does so in the order of the enum, which rules out deadlocks.
"""

import re
from enum import IntEnum

PLACEHOLDER = re.compile(r"\{([a-z_]+)_lock\}")


class Lock(IntEnum):
    """A number is "SHM" in ASCII and a counter. Servers of all releases on a database must use the same numbers."""

    MIGRATIONS = 0x53484D01  # session: the schema's migrations
    REPAIR = 0x53484D07  # session: repairs of derived data, which must not be applied twice
    BACKGROUND = 0x53484D05  # session: the background jobs, which only one process on a database runs
    PARTITIONS = 0x53484D06  # session: creation and removal of weekly partitions
    DISTRIBUTIONS = 0x53484D04  # transaction, with a hash of the metric: the computation of its distribution
    ROLLUP = 0x53484D03  # transaction: the series and how far they are rolled up
    WRITERS = 0x53484D02  # transaction: instances, tallies and the feed's cursor; a batch of snapshots waits for it


def substitute_lock_ids(sql: str) -> str:
    """SQL with the number of each lock in place of its name. Raises KeyError for an unknown name."""
    return PLACEHOLDER.sub(lambda match: str(Lock[match[1].upper()].value), sql)
