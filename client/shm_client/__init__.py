"""A client for SHM's admin API and its change feed. docs/feed.md describes how to follow a feed.

The package imports neither the server nor the console. It needs a URL and a token.
"""

from .changes import Decision
from .client import Client, feed
from .errors import (
    ClientError,
    IncompatibleServerError,
    InvalidResponseError,
    RefusedError,
    ServerUnavailableError,
    TooManyInstancesError,
    UnknownApplicationError,
)
from .events import Connected, Disconnected, FeedEvent, InstanceRemoved, InstanceUpdated, KpisUpdated, Listed
from .model import (
    Application,
    ApplicationSettings,
    BulkChange,
    Category,
    Counts,
    DiskForecast,
    Event,
    EventPage,
    Flag,
    Instance,
    Kpi,
    Kpis,
    MetricKey,
    MetricOverride,
    Page,
    PastKpis,
    Stats,
)
from .subscription import Subscription

__all__ = [
    "Application",
    "ApplicationSettings",
    "BulkChange",
    "Category",
    "Client",
    "ClientError",
    "Connected",
    "Counts",
    "Decision",
    "Disconnected",
    "DiskForecast",
    "Event",
    "EventPage",
    "FeedEvent",
    "Flag",
    "IncompatibleServerError",
    "Instance",
    "InstanceRemoved",
    "InstanceUpdated",
    "InvalidResponseError",
    "Kpi",
    "Kpis",
    "KpisUpdated",
    "Listed",
    "MetricKey",
    "MetricOverride",
    "Page",
    "PastKpis",
    "RefusedError",
    "ServerUnavailableError",
    "Stats",
    "Subscription",
    "TooManyInstancesError",
    "UnknownApplicationError",
    "feed",
]
