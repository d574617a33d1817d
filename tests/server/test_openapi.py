"""The OpenAPI document describes all operations of the server, and responses conform to it."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from nacl.signing import SigningKey
from openapi_spec_validator import validate

from shm.analytics.applications import ApplicationChange
from shm.server.app import ROUTES
from shm.server.handlers.base import Handler
from shm.server.handlers.ingest import ENDPOINTS
from shm.server.openapi import document
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.shared_servers import SeededServer

DOCUMENT = json.loads(document(ROUTES, ENDPOINTS))
EXAMPLE_ID = "c77af682-9aa4-412e-904a-c307d3a8a9c2"
SAMPLES = {"slug": "ledger", "key": "a", "app": "Ledger", "instance_id": EXAMPLE_ID, "token_id": EXAMPLE_ID}
REQUIRED_PARAMETERS = {"breakdown": "?by=version", "histogram": "?metric=a", "version-rank": "?version=1.5"}
UNSUPPORTED_METHOD = "TRACE"
FEED = "/api/v1/admin/feed"
READ_PATHS = [path for path, node in DOCUMENT["paths"].items() if "get" in node and path != FEED]
VERBS = "get|list|create|update|delete|approve|revoke|export|subscribe|register|activate|store|rotate|erase"
OPERATION_ID = re.compile(rf"({VERBS})([A-Z][a-z]+)+")
# What \s means in ECMAScript, as a part of a class of characters.
ECMASCRIPT_SPACE = r"\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"

api = schemathesis.openapi.from_dict(DOCUMENT)


def check_response(response: httpx.Response, path: str, status: int) -> None:
    """Fails unless the response has this status and conforms to the document."""
    assert response.status_code == status, response.text
    operation = api[path][response.request.method]
    operation.validate_response(response)


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT)


def test_the_document_is_served_without_a_token(seeded: SeededServer) -> None:
    response = plain_http.get(f"{seeded.server.url}/api/openapi.json")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.json() == DOCUMENT


def test_every_route_is_in_the_document_and_no_other() -> None:
    paths = {path: path.format(**SAMPLES) for path in DOCUMENT["paths"]}
    assert set(ENDPOINTS) <= set(paths)
    for pattern, _ in ROUTES:
        assert len([path for path, sample in paths.items() if re.fullmatch(pattern, sample)]) == 1, pattern
    assert len(paths) == len(ROUTES) + len(ENDPOINTS)


def test_operation_ids_are_unique_and_begin_with_a_verb() -> None:
    """Generated clients have a function for each."""
    ids = [operation["operationId"] for node in DOCUMENT["paths"].values() for operation in node.values()]
    assert len({name.lower() for name in ids}) == len(ids)
    assert [name for name in ids if not OPERATION_ID.fullmatch(name)] == []


def test_schema_names_are_unique_class_names() -> None:
    """Generated clients have a module for each class, named in lower case."""
    names = list(DOCUMENT["components"]["schemas"])
    assert len({name.lower() for name in names}) == len(names)
    assert [name for name in names if not re.fullmatch("([A-Z][a-z]+)+", name)] == []


def test_every_operation_has_a_response_for_success() -> None:
    """Client generators omit an operation without one."""
    for path, node in DOCUMENT["paths"].items():
        for method, operation in node.items():
            assert any(status.startswith("2") for status in operation["responses"]), (method, path)


def test_every_time_is_a_date_time() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, node in schema.get("properties", {}).items():
            if field.endswith("_at") or field in {"timestamp", "as_of", "running_since"}:
                assert "date-time" in {each.get("format") for each in node.get("anyOf", [node])}, (name, field)


def test_header_parameters_are_strings() -> None:
    """Generated clients can send only strings in headers."""
    for node in DOCUMENT["paths"].values():
        for operation in node.values():
            for parameter in operation.get("parameters", []):
                assert parameter["in"] != "header" or parameter["schema"]["type"] == "string", parameter


@pytest.mark.parametrize(
    ("field", "template"),
    [("name", "{}"), ("name", "a{}"), ("name", "a{}b"), ("github_url", "https://x/{}"), ("github_url", "{}")],
)
def test_document_and_server_accept_the_same_characters(field: str, template: str) -> None:
    """Readers of the document match by ECMAScript: its white space is not Python's, and `$` is the end alone."""
    schema = DOCUMENT["components"]["schemas"]["ApplicationChange"]["properties"][field]["anyOf"][0]
    assert schema["pattern"].endswith("$")
    documented = re.compile(schema["pattern"].removesuffix("$").replace(r"\s", ECMASCRIPT_SPACE))
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x10000)]):
        text = template.format(character)
        try:
            msgspec.convert({field: text}, ApplicationChange)
        except msgspec.ValidationError:
            assert not documented.fullmatch(text), ascii(text)
        else:
            assert documented.fullmatch(text), ascii(text)


def test_the_document_describes_blank_names_of_registrations() -> None:
    pattern = DOCUMENT["components"]["schemas"]["RegisterBody"]["properties"]["app_name"]["pattern"]
    documented = re.compile(pattern.replace(r"\s", ECMASCRIPT_SPACE))
    for character in map(chr, range(0xD800)):
        assert bool(documented.search(character)) == bool(character.strip()), ascii(character)
    assert documented.search("\ufeff")


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_path_supports_the_documented_methods_and_no_other(path: str, seeded: SeededServer) -> None:
    """HEAD is not documented: it is GET without the body."""
    response = plain_http.request(UNSUPPORTED_METHOD, seeded.server.url + path.format(**SAMPLES))
    assert response.status_code == 405
    allowed = set(response.headers["Allow"].lower().split(", "))
    assert allowed - {"head"} == set(DOCUMENT["paths"][path])


@pytest.mark.parametrize("path", READ_PATHS)
def test_responses_to_reads_conform_to_the_document(path: str, seeded: SeededServer) -> None:
    url = seeded.server.url + path.format(**seeded.known) + REQUIRED_PARAMETERS.get(path.rpartition("/")[2], "")
    response = plain_http.get(url, headers=seeded.server.headers)
    check_response(response, path, 200)
    head = plain_http.head(response.url, headers=seeded.server.headers)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == response.headers["Content-Type"]


def test_the_feed_requires_an_upgrade(seeded: SeededServer) -> None:
    check_response(plain_http.get(seeded.server.url + FEED, headers=seeded.server.headers), FEED, 400)


def test_responses_to_approve_and_revoke_conform_to_the_document(seeded: SeededServer) -> None:
    for verb, status in (("approve", 200), ("revoke", 200), ("approve", 409)):
        path = f"/api/v1/admin/instances/{{instance_id}}/{verb}"
        url = path.format(**seeded.known)
        check_response(plain_http.post(seeded.server.url + url, headers=seeded.server.headers), path, status)


def test_responses_to_installs_conform_to_the_document(seeded: SeededServer) -> None:
    install, new = Install(seeded.server.url), SigningKey.generate()

    def act(name: str, **more: str) -> httpx.Response:
        body = json.dumps(make_body(install, action=name, timestamp=now(), **more)).encode()
        headers = install.signed(body) | {"X-New-Signature": new.sign(body).signature.hex()}
        return install.post(f"/v1/{name}", body, headers)

    check_response(install.register(), "/v1/register", 201)
    check_response(install.register(), "/v1/register", 200)
    check_response(install.activate(), "/v1/activate", 200)
    check_response(install.register(public_key=new.verify_key.encode().hex()), "/v1/register", 409)
    check_response(install.snapshot({"a": 1}), "/v1/snapshot", 202)
    check_response(install.snapshot({"a": None}, "yesterday"), "/v1/snapshot", 400)
    members = [{"timestamp": now(), "metrics": {}}, {"timestamp": "yesterday", "metrics": {}}]
    backlog = json.dumps(make_body(install, snapshots=members)).encode()
    check_response(install.post("/v1/snapshots", backlog, install.signed(backlog)), "/v1/snapshots", 202)
    check_response(act("disclose"), "/v1/disclose", 200)
    check_response(act("rotate", new_public_key=new.verify_key.encode().hex()), "/v1/rotate", 200)
    check_response(act("erase"), "/v1/erase", 403)
    install.key = new
    check_response(act("erase"), "/v1/erase", 200)
    check_response(act("erase"), "/v1/erase", 403)


def make_body(install: Install, **more: Any) -> dict[str, Any]:
    """The body of an install's request."""
    return {"instance_id": install.instance_id, **more}


def now() -> str:
    """The current time as a timestamp."""
    return datetime.now(UTC).isoformat()


def test_every_handler_with_an_operation_has_a_route() -> None:
    declared = {handler for handler in _subclasses(Handler) if handler.__module__.startswith("shm.server.handlers")}
    methods = ("get", "post", "put", "delete")
    with_operation = {handler for handler in declared if any(method in vars(handler) for method in methods)}
    assert with_operation - {handler for _, handler in ROUTES} == set()


def _subclasses(base: type[Handler]) -> set[type[Handler]]:
    return {base}.union(*map(_subclasses, base.__subclasses__()))
