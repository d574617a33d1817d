"""Failures of background work on one instance: such an instance must not delay the others.

A database that is unavailable or full fails for all instances alike. That is no failure of one.
"""

from shm.core.errors import DatabaseUnavailable, QueryTooSlow
from shm.core.logs import describe_error

SHORT_ID_DIGITS = 8  # of an instance's ID in a log line


def is_outage(error: Exception) -> bool:
    """Whether an exception concerns the database and not the instance."""
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, QueryTooSlow)


def describe_failure(instance_id: str, error: Exception) -> str:
    """The instance and the reason, without data that it sent."""
    return f"{instance_id[:SHORT_ID_DIGITS]}: {describe_error(error)}"
