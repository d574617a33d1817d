"""A client for SHM's admin API and its change feed; docs/feed.md tells how a feed is followed.

It knows nothing of the server's code or the console's: whoever has a URL and a token can use it.
"""

from .changes import Away, Change, Connected, KpisMoved, Listed, Put, Removed
from .client import Client, feed
from .errors import (
    AnswerError,
    ClientError,
    RefusedError,
    TooManyInstancesError,
    UnknownApplicationError,
    UnreachableError,
)
from .model import Application, Category, Counts, Flag, Instance, Kpi, Kpis, Page, Stats
from .subscription import Subscription

__all__ = [
    "AnswerError",
    "Application",
    "Away",
    "Category",
    "Change",
    "Client",
    "ClientError",
    "Connected",
    "Counts",
    "Flag",
    "Instance",
    "Kpi",
    "Kpis",
    "KpisMoved",
    "Listed",
    "Page",
    "Put",
    "RefusedError",
    "Removed",
    "Stats",
    "Subscription",
    "TooManyInstancesError",
    "UnknownApplicationError",
    "UnreachableError",
    "feed",
]
