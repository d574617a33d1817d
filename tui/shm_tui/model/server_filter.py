"""The terms of a filter that the server evaluates over the whole fleet, as parameters of its lists."""

from collections.abc import Mapping
from dataclasses import dataclass

from shm_tui.model.state import State

SERVER_STATUSES = {State.PENDING: "pending", State.REVOKED: "revoked"}  # the others depend on the active window too


@dataclass(frozen=True, slots=True)
class ServerFilter:
    """`parameters` select all matching instances, and perhaps more. `is_whole`: they select no others."""

    parameters: Mapping[str, str]
    is_whole: bool


NO_SERVER_FILTER = ServerFilter({}, is_whole=False)


def status_parameter(states: frozenset[State]) -> dict[str, str]:
    """The parameter that selects exactly these states; none if there is no such parameter."""
    (state,) = states if len(states) == 1 else (None,)
    return {"status": SERVER_STATUSES[state]} if state in SERVER_STATUSES else {}


def combine(terms: list[dict[str, str]]) -> ServerFilter:
    """The parameters of a filter from those of its terms. A second value of a parameter is left to the client."""
    parameters: dict[str, str] = {}
    is_whole = bool(terms)
    for term in terms:
        is_whole = is_whole and bool(term) and not (term.keys() & parameters.keys())
        parameters = term | parameters
    return ServerFilter(parameters, is_whole)
