"""Functions that read responses of the API: refusals by their code, instances by their ID."""

from typing import Any

import httpx

from tests.support.server_process import ServerProcess


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal. Asserts that it has the shape of RFC 9457."""
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body.keys() - {"server_time"} == {"type", "title", "status", "detail", "code"}
    assert ("server_time" in body) == (body["code"] in ("timestamp_ahead", "timestamp_too_old"))
    assert body["status"] == response.status_code
    return response.status_code, body["code"]


def instances_by_id(server: ServerProcess) -> dict[str, dict[str, Any]]:
    """All instances that the API lists, by ID."""
    return {item["instance_id"]: item for item in server.get("instances?limit=1000").json()}


READER_ERROR_CODES = {
    "no_repository",
    "repository_changed",
    "github_unreachable",
    "github_refused",
    "ambiguous_instance_id",
    "short_instance_id",
    "too_many_overrides",
    "bad_after",
    "bad_condition",
    "name_taken",
    "too_many_changes",
    "servers_own_token",
    "bad_parameter",
    "unknown_parameter",
    "missing_token",
    "bad_token",
    "role_too_small",
    "no_such_application",
    "no_such_instance",
    "no_such_token",
    "own_token",
    "too_many_tokens",
    "revoked_for_good",
    "upgrade_wanted",
    "websocket_version",
    "unexpected_body",
    "foreign_origin",
    "too_many_subscribers",
    "too_many_guesses",
}
