"""The server's OpenAPI document as a Schemathesis schema, and the checks on each response."""

import json
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi import checks

from shm.server.app import describe_routes
from tests.support.installs import Install
from tests.support.shared_servers import SeededServer

TIMEOUT_S = 60

# These paths refuse some values that match the schema, because no schema can describe the valid ones: points of the
# curve, page tokens, names and expiry of tokens.
STRICTER_THAN_SCHEMA = [
    "/v1/register",
    "/api/v1/admin/metrics/{app}",
    "/api/v1/admin/applications/{slug}/versions",
    "/api/v1/admin/applications/{slug}/kpis",
    "/api/v1/admin/applications/{slug}/histogram",
    "/api/v1/admin/instances",
    "/api/v1/admin/instances/count",
    "/api/v1/admin/export",
    "/api/v1/admin/instances/{instance_id}/snapshots",
    "/api/v1/admin/tokens",
    "/api/v1/admin/audit",
    "/api/v1/admin/events",
    "/api/v1/admin/bulk-changes",
    "/api/v1/admin/failed-removals",
]
# They accept more values than the document declares: paths of the original server, whose parameters they are, and
# registrations, whose timestamp is not read unless they are signed.
LENIENT = [
    "/v1/register",
    "/api/v1/admin/instances",
    "/api/v1/admin/metrics/{app}",
    *(f"/badge/{{slug}}/{name}" for name in ("instances", "version", "metric/{key}", "combined")),
]
# The token is always valid: Schemathesis must not generate others. A separate test checks that a token is required.
CONFIG = {
    # The refusals of the API. Its default lacks 413: a list with too many items may be too large as well.
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 413, 415, 429]}},
    "operations": [
        {"include-path-regex": "^/(api/|metrics/fleet)", "generation": {"with-security-parameters": False}},
        *(
            {"include-path": path, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for path in STRICTER_THAN_SCHEMA
        ),
        *({"include-path": path, "checks": {"negative_data_rejection": {"enabled": False}}} for path in LENIENT),
    ],
}

# Schemathesis cannot read the response to an upgrade. `test_openapi` and `test_feed` request it.
FEED = "/api/v1/admin/feed"
# Some filters would delete data that other cases need. `test_bulk_changes` sends requests to it.
BULK = "/api/v1/admin/instances/bulk"

# Checks that depend on how a case was generated. They do not apply after its path parameters were replaced.
GENERATION_CHECKS = [
    checks.negative_data_rejection,
    checks.positive_data_acceptance,
    checks.missing_required_header,
    checks.unsupported_method,
]


def load_schema(*, coverage: bool) -> BaseSchema:
    """The schema of all operations that Schemathesis can request.

    `coverage`: also generates a case for each boundary of each parameter and field, a thousand of them. Each worker of
    pytest generates all of them when it collects the tests.
    """
    config = SchemathesisConfig.from_dict(CONFIG | {"phases": {"coverage": {"enabled": coverage}}})
    return schemathesis.openapi.from_dict(json.loads(describe_routes()), config=config).exclude(path=[FEED, BULK])


def check_case(case: schemathesis.Case[Any], seeded: SeededServer) -> None:
    """Runs all checks on a case, and again with existing values in its path, because random ones exist nowhere."""
    server = seeded.server
    case.call_and_validate(base_url=server.url, headers=server.headers, timeout=TIMEOUT_S)
    if case.path_parameters:
        known = seeded.known
        is_final = case.method == "DELETE" or case.path.endswith("/revoke")
        if is_final and "instance_id" in known:  # the seeded instance stays as it is
            known = known | {"instance_id": Install(server.url).enroll().instance_id}
        if is_final and "slug" in case.path_parameters:
            Install(server.url, app_name="Short-lived").enroll()
            known = known | {"slug": "short-lived"}
        case.path_parameters.update({name: known[name] for name in case.path_parameters})
        case.call_and_validate(
            base_url=server.url, headers=server.headers, timeout=TIMEOUT_S, excluded_checks=GENERATION_CHECKS
        )
    assert server.is_running
    assert "Traceback" not in server.log
