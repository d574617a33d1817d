"""PostgreSQL's advisory locks: every number that SHM uses, what it protects, and the order in which they are taken.

SQL names a lock in braces, `pg_advisory_xact_lock({writers_lock})`; `shm.db.statements` fills in the number. A
transaction or session that takes several takes them in the order of the enum. Two sessions can then never wait for
each other.
"""

import re
from enum import IntEnum

MARKER = re.compile(r"\{([a-z_]+)_lock\}")


class Lock(IntEnum):
    """The numbers are "SHM" in ASCII and a counter. They are part of the protocol between servers of all releases."""

    MIGRATIONS = 0x53484D01  # session: the schema's migrations
    REPAIR = 0x53484D07  # session: repairs of derived data, which must not be applied twice
    BACKGROUND = 0x53484D05  # session: the background jobs, which one process of all on a database runs
    PARTITIONS = 0x53484D06  # session: creation and removal of weekly partitions
    SPREADS = 0x53484D04  # transaction, with a hash of the metric: the computation of its spread
    ROLLUP = 0x53484D03  # transaction: the series and how far they are rolled up
    WRITERS = 0x53484D02  # transaction: instances, tallies and the feed's cursor; a batch of snapshots waits for it


def substitute_lock_ids(sql: str) -> str:
    """SQL with each lock's number in place of its name. Raises KeyError for an unknown name."""
    return MARKER.sub(lambda match: str(Lock[match[1].upper()].value), sql)
