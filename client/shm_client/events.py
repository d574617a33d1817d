"""The events of a feed: changes to apply to a dict of instances, and the state of the connection."""

from dataclasses import dataclass

from .errors import ClientError
from .model import Instance, Kpis


@dataclass(frozen=True, slots=True)
class InstanceUpdated:
    """The current state of an instance. `changed` is true after a change, and false when it was only listed."""

    instance: Instance
    changed: bool = True


@dataclass(frozen=True, slots=True)
class InstanceRemoved:
    """An instance was erased, or is no longer among the requested ones."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class KpisUpdated:
    """The current KPIs of an application."""

    kpis: Kpis


@dataclass(frozen=True, slots=True)
class Listed:
    """The first page has been read, or with `complete` the whole list. Changes made during the reading follow."""

    complete: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """The feed is connected: from here on, changes arrive when they happen."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The server is unavailable because of `error`. The next attempt follows in `retry_in_s` seconds."""

    error: ClientError
    retry_in_s: float


FeedEvent = InstanceUpdated | InstanceRemoved | KpisUpdated | Listed | Connected | Disconnected
