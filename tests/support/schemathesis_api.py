"""The server's document as Schemathesis reads it, and what every answer is held to."""

import json
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks

from shm.server.app import ROUTES
from shm.server.handlers.ingest import ENDPOINTS
from shm.server.openapi import document
from tests.support.installs import Install
from tests.support.targets import Seeded

LIMIT_S = 10

# What no schema can say: which 64 digits are a point of the curve; what a mark is, which is taken as it was told; which
# names a token may have, and for how long it may be valid.
ACCEPTED_BY_MORE_THAN_SHAPE = [
    "/v1/register",
    "/api/v1/admin/instances",
    "/api/v1/admin/instances/{instance_id}/snapshots",
    "/api/v1/admin/tokens",
    "/api/v1/admin/audit",
    "/api/v1/admin/bulk-changes",
]
# Parameters of the original, which accept more than the document says.
LENIENT = ["/api/v1/admin/instances", "/api/v1/admin/metrics/{app}"]
# A reader's token is ours and always good, so it is none of what is made wrong; that it counts is a check of its own.
CONFIG = {
    "operations": [
        {"include-path-regex": "^/api/", "generation": {"with-security-parameters": False}},
        *(
            {"include-path": path, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for path in ACCEPTED_BY_MORE_THAN_SHAPE
        ),
        *({"include-path": path, "checks": {"negative_data_rejection": {"enabled": False}}} for path in LENIENT),
    ]
}

# An upgrade is no answer that Schemathesis could read. `test_openapi` and `test_feed` ask for it.
FEED = "/api/v1/admin/feed"
# Some filters would delete what the other cases need. `test_bulk_changes` sends it.
BULK = "/api/v1/admin/instances/bulk"

schema = schemathesis.openapi.from_dict(
    json.loads(document(ROUTES, ENDPOINTS)), config=SchemathesisConfig.from_dict(CONFIG)
).exclude(path=[FEED, BULK])

# They judge by how a case was made, which is no longer how it is once its path is another.
BY_HOW_A_CASE_WAS_MADE = [
    checks.negative_data_rejection,
    checks.positive_data_acceptance,
    checks.missing_required_header,
    checks.unsupported_method,
]


def check_case(case: schemathesis.Case[Any], seeded: Seeded) -> None:
    """All checks on the case, and again on the same with what there is in its path: chance does not hit it."""
    server = seeded.server
    case.call_and_validate(base_url=server.url, headers=server.headers, timeout=LIMIT_S)
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
            base_url=server.url, headers=server.headers, timeout=LIMIT_S, excluded_checks=BY_HOW_A_CASE_WAS_MADE
        )
    assert server.is_running
    assert "Traceback" not in server.log
