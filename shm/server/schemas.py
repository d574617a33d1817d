"""JSON schemas of requests and responses, made from their types as they are encoded."""

from collections.abc import Iterable
from types import NoneType
from typing import Any

import msgspec

from shm.server.http.operations import JSON, Stream

Node = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
WITHOUT_SCHEMA = (NoneType, bytes, Stream)  # responses of which only the media type is known
NULL: Node = {"type": "null"}


class Schemas:
    """The schemas of the given types. `components` has those of all their structs except the queries."""

    def __init__(self, types: Iterable[Any], queries: Iterable[type[msgspec.Struct]]) -> None:
        queries = set(queries)
        self._types = [type_ for type_ in [*types, *queries] if type_ not in WITHOUT_SCHEMA]
        schemas, components = msgspec.json.schema_components(
            self._types, schema_hook=_object_schema, ref_template=REFERENCE
        )
        self._schemas: list[Node] = [_as_documented(schema) for schema in schemas]
        self.components: Node = _as_documented(components)
        self._queries = {query: self.components.pop(self._name(query)) for query in queries}

    def schema_of(self, type_: Any, media_type: str = JSON) -> Node:
        """The schema of one of the types. That of an untyped response follows from its media type."""
        if type_ in WITHOUT_SCHEMA:
            return {"type": "object" if media_type == JSON else "string"}
        return self._schemas[self._types.index(type_)]

    def parameters(self, query: type[msgspec.Struct]) -> list[Node]:
        """The parameters for the fields of a query."""
        query_schema = self._queries[query]
        return [
            {"name": name, "in": "query", "required": name in query_schema["required"], **_parameter(schema)}
            for name, schema in query_schema["properties"].items()
        ]

    def _name(self, struct: type[msgspec.Struct]) -> str:
        return str(self.schema_of(struct)["$ref"]).rpartition("/")[2]


def _parameter(schema: Node) -> Node:
    """A query field's schema as a parameter's. Null is removed, because an unused parameter is omitted.

    The description moves from the schema to the parameter.
    """
    parameter_schema = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    choices = [choice for choice in parameter_schema.pop("anyOf", []) if choice != NULL]
    if len(choices) == 1:
        parameter_schema |= choices[0]
    elif choices:
        parameter_schema["anyOf"] = choices
    if None in parameter_schema.get("enum", []):
        parameter_schema["enum"] = [value for value in parameter_schema["enum"] if value is not None]
    description = parameter_schema.pop("description", None)
    parameter: Node = {"schema": parameter_schema}
    return parameter if description is None else {"description": description} | parameter


def _as_documented(node: Any) -> Any:
    """A schema in which decimals are numbers, as the server encodes them, and patterns end with `$`, not with `\\Z`.

    msgspec describes decimals as strings, and has the patterns of Python.
    """
    if isinstance(node, list):
        return [_as_documented(member) for member in node]
    if not isinstance(node, dict):
        return node
    if isinstance(pattern := node.get("pattern"), str) and pattern.endswith(r"\Z"):
        node = node | {"pattern": pattern.removesuffix(r"\Z") + "$"}
    if node.get("format") == "decimal":
        return {name: value for name, value in node.items() if name != "format"} | {"type": "number"}
    return {name: _as_documented(value) for name, value in node.items()}


def _object_schema(type_: type) -> Node:
    """The schema of `object`. It is not empty, because msgspec treats an empty schema as none."""
    if type_ is not object:
        raise NotImplementedError(f"{type_} has no schema")
    return {"description": "Any JSON value."}
