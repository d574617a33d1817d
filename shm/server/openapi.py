"""The OpenAPI 3.1 document, made of what the routes and the installs' POSTs declare: nothing in it is written twice.

An operation's summary is its method's docstring, a schema's description its struct's, a refusal's its exception's.
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
    BadRequest,
    Conflict,
    Forbidden,
    HeadersTooLarge,
    NotFound,
    Overloaded,
    Refusal,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthorized,
)
from shm.ingest.envelope import Reading
from shm.server.handlers.base import Handler
from shm.server.http import problems
from shm.server.http.ingest_requests import Post
from shm.server.http.operations import JSON, Header, Operation
from shm.server.schemas import Schemas

Node = dict[str, Any]

GROUP = re.compile(r"\(\?P<(\w+)>([^()]*)\)")  # in a route's pattern: a parameter and what it may be
ANYBODY = (BadRequest, HeadersTooLarge, problems.Internal, Overloaded)
BEARER = (Unauthorized, TooMany)
INSTALL = (*ANYBODY, Unauthorized, Forbidden, TooSlow, TooLarge, TooMany)
REFUSALS = (*INSTALL, NotFound, Conflict)

ABOUT = """\
What the vendor reads and decides, with a bearer token, and what installs send, signed.

Every refusal is `application/problem+json` with a stable `code`. Lists are arrays; the next page is in the `Link` \
header. What an answer is true at is its `X-Feed-Cursor`; with it as `since`, the feed tells all that changed later. \
HEAD is answered wherever GET is. Numbers keep the digits with which they were sent."""

LIMITS = (
    Header("X-RateLimit-Limit", "How many requests may come at once.", int, always=False),
    Header("X-RateLimit-Remaining", "How many of them are left.", int, always=False),
    Header("X-RateLimit-Reset", "When all of them will be there again, in Unix time.", int, always=False),
)
RETRY = Header("Retry-After", "Seconds to wait before the next try.", int)
CHALLENGE = Header("WWW-Authenticate", "`Bearer`, where a token is wanted.", always=False)
BESIDE: dict[type[Refusal], tuple[Header, ...]] = {
    Unauthorized: (CHALLENGE,),
    TooMany: (RETRY, *LIMITS),
    Overloaded: (RETRY,),
}

PROOFS = {
    "X-Instance-ID": "The instance's UUID.",
    "X-Signature": "The Ed25519 signature over the exact bytes of the body, in hex.",
    "X-New-Signature": "The same by the new key.",
}
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


def document(routes: Sequence[tuple[str, type[Handler]]], posts: Mapping[str, Post]) -> bytes:
    """The document's JSON."""
    asked = [(pattern, handler, *declared) for pattern, handler in routes for declared in handler.operations.items()]
    declared = [found for _, _, _, found in asked]
    schemas = Schemas(
        [
            problems.Problem,
            Reading,  # what a backlog's members are
            *(post.answers for post in posts.values()),
            *(post.body for post in posts.values() if post.body is not None),
            *(found.answers for found in declared),
            *(found.body for found in declared if found.body is not None),
            *(header.shape for found in declared for header in found.headers),
            *(header.shape for header in (*LIMITS, RETRY, CHALLENGE)),
        ],
        [found.query for found in declared if found.query is not None],
    )
    paths: Node = {path: {"post": _posted(post, schemas)} for path, post in posts.items()}
    for pattern, handler, method, found in asked:
        if method != "head":
            path = GROUP.sub(r"{\1}", pattern)
            paths.setdefault(path, {})[method] = _operation(pattern, handler, method, found, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "SHM",
                "version": __version__,
                "description": ABOUT,
                "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "responses": {refusal.__name__: _refusal(refusal, schemas) for refusal in REFUSALS},
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    **{
                        name: {"type": "apiKey", "in": "header", "name": name, "description": text}
                        for name, text in PROOFS.items()
                    },
                },
            },
        }
    )


def _operation(pattern: str, handler: type[Handler], method: str, found: Operation, schemas: Schemas) -> Node:
    told = [*found.headers, *(LIMITS if found.role >= Role.VIEWER else ())]
    refuses = [*ANYBODY, *found.refuses]
    if found.role >= Role.VIEWER:
        refuses += BEARER
    if found.role > Role.VIEWER:
        refuses.append(Forbidden)
    if found.body is not None:
        refuses.append(TooLarge)
    node: Node = {
        **_sentence(found.sentence),
        "operationId": f"{method}{handler.__name__}",
        "tags": [handler.__module__.rpartition(".")[2]],
        "security": [{"bearer": []}] if found.role >= Role.VIEWER else [],
        "parameters": [
            *_path_parameters(pattern, found),
            *([] if found.query is None else schemas.parameters(found.query)),
        ],
        "responses": {
            str(found.status.value): _success(found.status, told, _content(found, schemas), schemas),
            **_refusals(refuses),
        },
    }
    if found.status is HTTPStatus.SWITCHING_PROTOCOLS:
        node["parameters"] += [
            {"name": name, "in": "header", "required": True, "schema": {"const": value}}
            for name, value in UPGRADE.items()
        ]
    if found.body is not None:
        node["requestBody"] = _body(schemas.of(found.body))
    return node


def _posted(post: Post, schemas: Schemas) -> Node:
    proof = {name: list[str]() for name in post.proof}
    answer = {JSON: {"schema": schemas.of(post.answers)}}
    return {
        **_sentence(inspect.getdoc(post.accept) or ""),
        "operationId": post.accept.__name__,
        "tags": ["installs"],
        "security": [proof] if post.proof_wanted else [{}, proof],
        "requestBody": _body({"type": "object"} if post.body is None else schemas.of(post.body)),
        "responses": {
            **{str(status.value): _success(status, LIMITS, answer, schemas) for status in post.statuses},
            **_refusals([*INSTALL, *post.refuses]),
        },
    }


def _sentence(docstring: str) -> Node:
    """The first sentence is the summary; what follows describes."""
    first, _, rest = docstring.partition("\n\n")
    return {"summary": " ".join(first.split())} | ({"description": rest} if rest else {})


def _path_parameters(pattern: str, found: Operation) -> list[Node]:
    told = {name: msgspec.json.schema(shape).get("description") for name, shape in found.path.items()}
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^({allowed})$"}}
        | ({} if told[name] is None else {"description": told[name]})
        for name, allowed in GROUP.findall(pattern)
    ]


def _body(schema: Node) -> Node:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _content(found: Operation, schemas: Schemas) -> Node:
    return {media: {"schema": schemas.of(found.answers, media)} for media in found.media} if found.has_body else {}


def _success(status: HTTPStatus, headers: Iterable[Header], content: Node, schemas: Schemas) -> Node:
    node: Node = {"description": status.phrase, "headers": _headers(headers, schemas), "content": content}
    return {name: value for name, value in node.items() if value}


def _headers(headers: Iterable[Header], schemas: Schemas) -> Node:
    return {
        header.name: {
            "description": header.description,
            "required": header.always,
            "schema": schemas.of(header.shape),
        }
        for header in headers
    }


def _refusals(refuses: Iterable[type[Refusal]]) -> Node:
    return {
        str(refusal.status.value): {"$ref": f"#/components/responses/{refusal.__name__}"}
        for refusal in sorted(refuses, key=lambda refusal: refusal.status)
    }


def _refusal(refusal: type[Refusal], schemas: Schemas) -> Node:
    content = {problems.CONTENT_TYPE: {"schema": schemas.of(problems.Problem)}}
    node: Node = {"description": inspect.getdoc(refusal), "content": content}
    headers = BESIDE.get(refusal)
    return node if headers is None else node | {"headers": _headers(headers, schemas)}
