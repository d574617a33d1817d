"""The admin API: authentication, pages, filters, and the exactness of values."""

import json
from datetime import timedelta

import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

OUT_OF_RANGE_TOKEN = "after=0001-01-01T00:00:00%2B23:59_c77af682-9aa4-412e-904a-c307d3a8a9c2"
PATHS = ["stats", "applications", "applications/ledger", "applications/ledger/kpis", "instances", "feed"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", "Basic YTpi", "wrong"])
def test_a_request_without_a_valid_token_is_refused(
    shared_server: ServerProcess, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/{path}", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_token_in_the_query_is_not_accepted(shared_server: ServerProcess) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/stats", params={"token": shared_server.admin_token})
    assert response.status_code == 401
    assert shared_server.admin_token not in shared_server.log


def test_pages_have_no_gap_and_no_duplicate(server: ServerProcess) -> None:
    installs = [Install(server.url).enroll({"n": number}) for number in range(7)]
    pending = Install(server.url)
    pending.register()
    seen: list[str] = []
    path: str | None = "/api/v1/admin/instances?limit=3"
    while path:
        response = plain_http.get(f"{server.url}{path}", headers=server.headers)
        seen += [item["instance_id"] for item in response.json()]
        link = response.links.get("next", {}).get("url")
        path = link and response.url.join(link).raw_path.decode()
    assert seen == [install.instance_id for install in reversed(installs)] + [pending.instance_id]


def test_each_filter_selects_the_matching_instances(server: ServerProcess) -> None:
    first = Install(server.url, app_name="Café Board", app_version="1.0%").enroll()
    second = Install(server.url, app_name="Kiosk", app_version="2.0", environment="staging").enroll()

    def ids(query: str) -> list[str]:
        return [item["instance_id"] for item in server.get(f"instances?{query}").json()]

    assert ids("app=cafe-board") == ids("app=Caf%C3%A9+Board") == [first.instance_id]
    assert ids("version=2.0") == ids("environment=staging") == ids("q=STAG") == [second.instance_id]
    assert ids(f"q={first.instance_id[4:12]}") == [first.instance_id]
    assert ids("q=1.0%25") == [first.instance_id]
    assert ids("q=%25") == [first.instance_id]
    assert ids("status=active") == [second.instance_id, first.instance_id]
    assert ids("status=pending") == ids("q=nothing") == []


@pytest.mark.parametrize(
    "query",
    [
        "offset=100001",
        "offset=1&after=_c77af682-9aa4-412e-904a-c307d3a8a9c2",
        "page=2",
        "version=a&version=b",
        "after=x",
        "after=_x",
        "after=2026_01",
        "status=foo",
        OUT_OF_RANGE_TOKEN,
    ],
)
def test_an_invalid_query_is_refused(shared_server: ServerProcess, query: str) -> None:
    response = plain_http.get(f"{shared_server.url}/api/v1/admin/instances?{query}", headers=shared_server.headers)
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")


def test_an_unknown_application_is_not_found(shared_server: ServerProcess) -> None:
    for path in ("applications/nobody", "applications/nobody/kpis"):
        response = plain_http.get(f"{shared_server.url}/api/v1/admin/{path}", headers=shared_server.headers)
        assert (response.status_code, response.json()["code"]) == (404, "no_such_application")


def test_numbers_keep_all_their_digits(server: ServerProcess) -> None:
    install = Install(server.url)
    install.register()
    body = install.snapshot_body("METRICS").replace(b'"METRICS"', b'{"a": 1.50, "b": 123456789012345678901234567890}')
    assert install.post("/v1/snapshot", body, install.signed(body)).status_code == 202
    assert '"a": 1.50' in server.get("instances").text
    assert "123456789012345678901234567890" in server.get("instances").text
    assert '"value":123456789012345678901234567890,' in server.get("applications/ledger/kpis").text


def test_metrics_are_returned_as_sent(server: ServerProcess) -> None:
    sent = {"nested": {"deep": [1, {"x": None}]}, "null": None, "text": "<b>&\u202e\x1b]52", "flag": False}
    install = Install(server.url).enroll(sent, ago=timedelta(minutes=1))
    (item,) = server.get("instances").json()
    assert item["metrics"] == sent
    assert item["instance_id"] == install.instance_id
    assert item["snapshot_at"].endswith("Z")
    assert json.dumps(item)


def test_health_and_readiness_need_no_token(shared_server: ServerProcess) -> None:
    assert plain_http.get(f"{shared_server.url}/api/v1/healthcheck").json() == {"status": "ok"}
    assert plain_http.get(f"{shared_server.url}/api/v1/ready").json() == {"status": "ready"}
