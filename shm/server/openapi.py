"""The OpenAPI 3.1 document, built from the declarations of the routes and of the client protocol's endpoints.

An operation's summary is the docstring of its method, a schema's description that of its struct, and a refusal's
description that of its exception.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from shm import __version__
from shm.auth.tokens import Role
from shm.core.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    Forbidden,
    HeadersTooLarge,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Refusal,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
    UrlTooLong,
)
from shm.ingest.payloads import BacklogSnapshot
from shm.server.handlers.base import Handler
from shm.server.http import problems
from shm.server.http.ingest_requests import Endpoint
from shm.server.http.operations import JSON, Header, Operation
from shm.server.schemas import Schemas

Node = dict[str, Any]

GROUP = re.compile(r"\(\?P<(\w+)>([^()]*)\)")  # in a route's pattern: a parameter and the pattern of its value
COMMON_REFUSALS = (BadRequest, UrlTooLong, HeadersTooLarge, problems.Internal, Overloaded)
TOKEN_REFUSALS = (Unauthorized, TooManyRequests)
INSTALL_REFUSALS = (*COMMON_REFUSALS, Unauthorized, Forbidden, RequestTimeout, PayloadTooLarge, TooManyRequests)
ALL_REFUSALS = (*INSTALL_REFUSALS, NotFound, Conflict, BadGateway)

DESCRIPTION = """\
Requests of the vendor have a bearer token; requests of installs are signed.

Every error is `application/problem+json` with a stable `code`. Lists are arrays; the URL of the next page is in the \
`Link` header. `X-Feed-Cursor` is the feed's cursor of the response's state; with it as `since`, the feed sends every \
later change. `X-API-Level` rises with each change that an older client, or a newer client of an older server, does \
not work with. HEAD is supported wherever GET is. Numbers keep all the digits that were sent."""

RATE_LIMIT_HEADERS = (
    Header("X-RateLimit-Limit", "The maximum number of requests at the same moment.", int, always=False),
    Header("X-RateLimit-Remaining", "The remaining number of requests.", int, always=False),
    Header("X-RateLimit-Reset", "The Unix time at which the budget is full again.", int, always=False),
)
RETRY_AFTER = Header("Retry-After", "Seconds to wait before the next attempt.", int)
CHALLENGE = Header("WWW-Authenticate", "`Bearer`, if a token is required.", always=False)
ERROR_HEADERS: dict[type[Refusal], tuple[Header, ...]] = {
    Unauthorized: (CHALLENGE,),
    TooManyRequests: (RETRY_AFTER, *RATE_LIMIT_HEADERS),
    Overloaded: (RETRY_AFTER,),
}

SIGNATURE_HEADERS = {
    "X-Instance-ID": "The instance's UUID.",
    "X-Signature": "The Ed25519 signature over the exact bytes of the body, in hex.",
    "X-New-Signature": "The signature over the same bytes by the new key, in hex.",
}
# Client generators omit an operation without a success response.
NO_SUCCESS = "Never sent: 101 opens the websocket, and its messages follow."
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


def document(routes: Sequence[tuple[str, type[Handler]]], endpoints: Mapping[str, Endpoint]) -> bytes:
    """Builds the document as JSON."""
    operations = [
        (pattern, handler, *declared) for pattern, handler in routes for declared in handler.operations.items()
    ]
    declared = [operation for _, _, _, operation in operations]
    schemas = Schemas(
        [
            problems.Problem,
            BacklogSnapshot,  # of a backlog's members
            *(endpoint.response for endpoint in endpoints.values()),
            *(endpoint.body for endpoint in endpoints.values() if endpoint.body is not None),
            *(operation.returns for operation in declared),
            *(operation.body for operation in declared if operation.body is not None),
            *(header.value_type for operation in declared for header in operation.headers),
            *(header.value_type for header in (*RATE_LIMIT_HEADERS, RETRY_AFTER, CHALLENGE)),
        ],
        [operation.query for operation in declared if operation.query is not None],
    )
    paths: Node = {path: {"post": _describe_endpoint(endpoint, schemas)} for path, endpoint in endpoints.items()}
    for pattern, handler, method, operation in operations:
        if method != "head":
            path = GROUP.sub(r"{\1}", pattern)
            paths.setdefault(path, {})[method] = _operation(pattern, handler, operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "SHM",
                "version": __version__,
                "description": DESCRIPTION,
                "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "responses": {refusal.__name__: _refusal_response(refusal, schemas) for refusal in ALL_REFUSALS},
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    **{
                        name: {"type": "apiKey", "in": "header", "name": name, "description": text}
                        for name, text in SIGNATURE_HEADERS.items()
                    },
                },
            },
        }
    )


def _operation(pattern: str, handler: type[Handler], operation: Operation, schemas: Schemas) -> Node:
    headers = [*operation.headers, *(RATE_LIMIT_HEADERS if operation.role >= Role.VIEWER else ())]
    refuses = [*COMMON_REFUSALS, *operation.refuses]
    if operation.role >= Role.VIEWER:
        refuses += TOKEN_REFUSALS
    if operation.role > Role.VIEWER:
        refuses.append(Forbidden)
    if operation.body is not None:
        refuses.append(PayloadTooLarge)
    node: Node = {
        **_summary(operation.docstring),
        "operationId": operation.name,
        "tags": [handler.__module__.rpartition(".")[2]],
        "security": [{"bearer": []}] if operation.role >= Role.VIEWER else [],
        "parameters": [
            *_path_parameters(pattern, operation),
            *([] if operation.query is None else schemas.parameters(operation.query)),
        ],
        "responses": {
            str(operation.status.value): _success(operation.status, headers, _content(operation, schemas), schemas),
            **_refusals(refuses),
        },
    }
    if operation.status is HTTPStatus.SWITCHING_PROTOCOLS:
        node["parameters"] += [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string", "enum": [value]}}
            for name, value in UPGRADE.items()
        ]
        node["responses"]["2XX"] = {"description": NO_SUCCESS}
    if operation.body is not None:
        node["requestBody"] = _body(schemas.schema_of(operation.body))
    return node


def _describe_endpoint(endpoint: Endpoint, schemas: Schemas) -> Node:
    signature_headers = {name: list[str]() for name in endpoint.signature_headers}
    content = {JSON: {"schema": schemas.schema_of(endpoint.response)}}
    return {
        **_summary(inspect.getdoc(endpoint.handle) or ""),
        "operationId": endpoint.operation_id,
        "tags": ["installs"],
        "security": [signature_headers] if endpoint.requires_signature else [{}, signature_headers],
        "requestBody": _body({"type": "object"} if endpoint.body is None else schemas.schema_of(endpoint.body)),
        "responses": {
            **{
                str(status.value): _success(status, RATE_LIMIT_HEADERS, content, schemas)
                for status in endpoint.statuses
            },
            **_refusals([*INSTALL_REFUSALS, *endpoint.refuses]),
        },
    }


def _summary(docstring: str) -> Node:
    """The first paragraph is the summary, the rest the description."""
    first, _, rest = docstring.partition("\n\n")
    return {"summary": " ".join(first.split())} | ({"description": rest} if rest else {})


def _path_parameters(pattern: str, operation: Operation) -> list[Node]:
    headers = {name: msgspec.json.schema(shape).get("description") for name, shape in operation.path.items()}
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^({allowed})$"}}
        | ({} if headers[name] is None else {"description": headers[name]})
        for name, allowed in GROUP.findall(pattern)
    ]


def _body(schema: Node) -> Node:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _content(operation: Operation, schemas: Schemas) -> Node:
    return (
        {
            media_type: {"schema": schemas.schema_of(operation.returns, media_type)}
            for media_type in operation.media_types
        }
        if operation.has_body
        else {}
    )


def _success(status: HTTPStatus, headers: Iterable[Header], content: Node, schemas: Schemas) -> Node:
    node: Node = {"description": status.phrase, "headers": _headers(headers, schemas), "content": content}
    return {name: value for name, value in node.items() if value}


def _headers(headers: Iterable[Header], schemas: Schemas) -> Node:
    return {
        header.name: {
            "description": header.description,
            "required": header.always,
            "schema": schemas.schema_of(header.value_type),
        }
        for header in headers
    }


def _refusals(refuses: Iterable[type[Refusal]]) -> Node:
    return {
        str(refusal.status.value): {"$ref": f"#/components/responses/{refusal.__name__}"}
        for refusal in sorted(refuses, key=lambda refusal: refusal.status)
    }


def _refusal_response(refusal: type[Refusal], schemas: Schemas) -> Node:
    content = {problems.CONTENT_TYPE: {"schema": schemas.schema_of(problems.Problem)}}
    node: Node = {"description": inspect.getdoc(refusal) or "", "content": content}
    headers = ERROR_HEADERS.get(refusal)
    return node if headers is None else node | {"headers": _headers(headers, schemas)}
