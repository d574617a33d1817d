"""Conditions on rows, composed of the fragments in sql/parts/conditions.sql, as one parameter of a statement.

    Conditions([Condition("condition_status", {"value": "pending"})])

is the value of `%(conditions)s::boolean`. psycopg2 quotes the values of the fragments as it quotes any parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extensions import ISQLQuote, adapt, register_adapter

from shm.db.statements import fragment


@dataclass(frozen=True, slots=True)
class Condition:
    """A fragment by its name, with its parameters. Where the fragment is null, the condition is false."""

    part: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of these conditions. None of them: true."""

    all_of: Sequence[Condition] = ()


NO_CONDITIONS = Conditions()


class _ConditionsAdapter:
    """Quotes conditions for psycopg2."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._connection: Any = None

    def prepare(self, connection: Any) -> None:
        """psycopg2 calls it with the connection, which decides how texts are quoted."""
        self._connection = connection

    def getquoted(self) -> bytes:
        """The SQL of a boolean expression."""
        return b"(" + (b" AND ".join(map(self._quote, self._conditions.all_of)) or b"TRUE") + b")"

    def __conform__(self, protocol: object) -> "_ConditionsAdapter | None":
        return self if protocol is ISQLQuote else None

    def _quote(self, condition: Condition) -> bytes:
        values = {name: self._quote_value(value) for name, value in condition.parameters.items()}
        sql = (fragment(condition.part).encode() % {name.encode(): value for name, value in values.items()}).strip()
        return b"NOT coalesce((" + sql + b"), FALSE)" if condition.is_negated else b"(" + sql + b")"

    def _quote_value(self, value: object) -> bytes:
        adapted: Any = adapt(value)
        if hasattr(adapted, "prepare"):
            adapted.prepare(self._connection)
        quoted: bytes = adapted.getquoted()
        return quoted


register_adapter(Conditions, _ConditionsAdapter)
