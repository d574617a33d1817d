"""JSON schemas of requests and responses, made from their types as they are encoded."""

from collections.abc import Iterable
from types import NoneType
from typing import Any

import msgspec

from shm.server.http.operations import JSON, Stream

Node = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
UNTYPED = (NoneType, bytes, Stream)  # responses of which only the media type is known
NULL: Node = {"type": "null"}


class Schemas:
    """The schemas of the given types. `components` has those of all their structs except the queries."""

    def __init__(self, hints: Iterable[Any], queries: Iterable[type[msgspec.Struct]]) -> None:
        queries = set(queries)
        self._shapes = [shape for shape in [*hints, *queries] if shape not in UNTYPED]
        found, components = msgspec.json.schema_components(self._shapes, schema_hook=_anything, ref_template=REFERENCE)
        self._schemas: list[Node] = [_as_sent(schema) for schema in found]
        self.components: Node = _as_sent(components)
        self._queries = {query: self.components.pop(self._name(query)) for query in queries}

    def of(self, shape: Any, media: str = JSON) -> Node:
        """The schema of one of the types. That of an untyped response follows from its media type."""
        if shape in UNTYPED:
            return {"type": "object" if media == JSON else "string"}
        return self._schemas[self._shapes.index(shape)]

    def parameters(self, query: type[msgspec.Struct]) -> list[Node]:
        """The parameters for the fields of a query."""
        shape = self._queries[query]
        return [
            {"name": name, "in": "query", "required": name in shape["required"], **_parameter(schema)}
            for name, schema in shape["properties"].items()
        ]

    def _name(self, struct: type[msgspec.Struct]) -> str:
        return str(self.of(struct)["$ref"]).rpartition("/")[2]


def _parameter(schema: Node) -> Node:
    """A query field's schema as a parameter's. Null is removed, because an unused parameter is omitted.

    The description moves from the schema to the parameter.
    """
    wanted = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    some = [choice for choice in wanted.pop("anyOf", []) if choice != NULL]
    if len(some) == 1:
        wanted |= some[0]
    elif some:
        wanted["anyOf"] = some
    if None in wanted.get("enum", []):
        wanted["enum"] = [value for value in wanted["enum"] if value is not None]
    description = wanted.pop("description", None)
    return {"schema": wanted} if description is None else {"description": description, "schema": wanted}


def _as_sent(node: Any) -> Any:
    """A schema in which decimals are numbers, as the server encodes them. msgspec describes them as strings."""
    if isinstance(node, list):
        return [_as_sent(member) for member in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        return {name: value for name, value in node.items() if name != "format"} | {"type": "number"}
    return {name: _as_sent(value) for name, value in node.items()}


def _anything(shape: type) -> Node:
    """The schema of `object`. It is not empty, because msgspec treats an empty schema as none."""
    if shape is not object:
        raise NotImplementedError(f"{shape} has no schema")
    return {"description": "Any JSON value."}
