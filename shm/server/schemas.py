"""Schemas of what is asked and answered, from the types themselves, as their JSON goes over the wire."""

from collections.abc import Iterable
from types import NoneType
from typing import Any

import msgspec

from shm.server.http.operations import JSON, Stream

Node = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
UNTYPED = (NoneType, bytes, Stream)  # answers of which only the media type is known
NULL: Node = {"type": "null"}


class Schemas:
    """The schemas of some types; `components` are those of the structs among and within them, but for the queries."""

    def __init__(self, hints: Iterable[Any], queries: Iterable[type[msgspec.Struct]]) -> None:
        queries = set(queries)
        self._shapes = [shape for shape in [*hints, *queries] if shape not in UNTYPED]
        found, components = msgspec.json.schema_components(self._shapes, schema_hook=_anything, ref_template=REFERENCE)
        self._schemas: list[Node] = [_as_sent(schema) for schema in found]
        self.components: Node = _as_sent(components)
        self._queries = {query: self.components.pop(self._name(query)) for query in queries}

    def of(self, shape: Any, media: str = JSON) -> Node:
        """The schema of one of them; of bytes, what their media type says."""
        if shape in UNTYPED:
            return {"type": "object" if media == JSON else "string"}
        return self._schemas[self._shapes.index(shape)]

    def parameters(self, query: type[msgspec.Struct]) -> list[Node]:
        """The fields of a query as its parameters."""
        shape = self._queries[query]
        return [
            {"name": name, "in": "query", "required": name in shape["required"], **_parameter(schema)}
            for name, schema in shape["properties"].items()
        ]

    def _name(self, struct: type[msgspec.Struct]) -> str:
        return str(self.of(struct)["$ref"]).rpartition("/")[2]


def _parameter(schema: Node) -> Node:
    """A parameter that is not wanted is left out, so none is null; its description is the parameter's own."""
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
    """Decimals are sent as JSON numbers, not as the strings that msgspec would make of them."""
    if isinstance(node, list):
        return [_as_sent(member) for member in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        return {name: value for name, value in node.items() if name != "format"} | {"type": "number"}
    return {name: _as_sent(value) for name, value in node.items()}


def _anything(shape: type) -> Node:
    """Of `object`. Not an empty schema, which msgspec takes for none."""
    if shape is not object:
        raise NotImplementedError(f"{shape} has no schema")
    return {"description": "Any JSON value."}
