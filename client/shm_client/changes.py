"""What a feed yields: changes, to be applied to a dict, and how the connection is, to be shown or let be."""

from dataclasses import dataclass

from .errors import ClientError
from .model import Instance, Kpis


@dataclass(frozen=True, slots=True)
class Put:
    """An instance as it is now. `told`: it has just changed, and was not merely listed."""

    instance: Instance
    told: bool = True


@dataclass(frozen=True, slots=True)
class Removed:
    """An instance is gone: erased, or not one of those that were asked for any more."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class KpisMoved:
    """An application's KPIs as they are now."""

    kpis: Kpis


@dataclass(frozen=True, slots=True)
class Listed:
    """The first page is through, or with `complete` all of the list; what moved while it was read is told next."""

    complete: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """Changes come as they happen, from here on."""


@dataclass(frozen=True, slots=True)
class Away:
    """The server is away, and why; the next try is `retry_in` seconds from now."""

    error: ClientError
    retry_in: float


Change = Put | Removed | KpisMoved | Listed | Connected | Away
