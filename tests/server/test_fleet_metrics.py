"""`GET /metrics/fleet`: the same figures as the API, with bounded labels, for viewers only."""

from collections.abc import Callable

import httpx

from shm.analytics.fleet_figures import MAX_APPLICATIONS, MAX_KEYS, MAX_RELEASES
from tests.support import plain_http
from tests.support.databases import execute
from tests.support.installs import Install
from tests.support.prometheus_scrape import Samples, parse_samples, sample_value
from tests.support.server_process import ServerProcess


def scrape_fleet(server: ServerProcess, query: str = "") -> Samples:
    """The samples, as the admin."""
    return parse_samples(get(server, query).raise_for_status().text)


def get(server: ServerProcess, query: str = "", **headers: str) -> httpx.Response:
    """The response, as the admin unless other headers are given."""
    return plain_http.get(f"{server.url}/metrics/fleet{query}", headers=headers or server.headers)


def put(server: ServerProcess, slug: str, **body: object) -> None:
    """Changes the settings of an application."""
    url = f"{server.url}/api/v1/admin/applications/{slug}"
    plain_http.request("PUT", url, json=body, headers=server.headers).raise_for_status()


def test_the_figures_are_those_of_the_api(server: ServerProcess) -> None:
    for number, version in enumerate(["v1.0", "1.0", "1.0.0", "2.0"]):
        Install(server.url, app_version=version).enroll({"sent": number, "beta": number > 1, "secret": 1, "plan": "x"})
    Install(server.url, environment="dev").enroll({"sent": 10})
    Install(server.url, app_name='Odd "name"\n').enroll({"sent": 7})
    put(server, "ledger", public_metrics=["sent"], overrides={"secret": {"hidden": True}})
    kpis = server.get("applications/ledger/kpis").json()
    now = scrape_fleet(server)
    assert sample_value(now, "shm_fleet_installs", app="ledger", status="active") == kpis["instances"]["active"] == 5
    assert sample_value(now, "shm_fleet_counted_installs", app="ledger") == kpis["instances"]["counted"] == 4
    series = {tuple(dict(sorted(labels)).values()): value for (name, labels), value in now.items() if "version" in name}
    versions = {version: value for (app, version), value in series.items() if app == "ledger"}
    assert sorted(versions.values()) == [1, 1, 3]
    assert versions["2.0"] == 1
    assert {key for name, labels in now for label, key in labels if label == "key"} == {"sent"}
    assert sample_value(now, "shm_fleet_metric", app="ledger", key="sent") == 16
    chosen = scrape_fleet(server, "?keys=sent,beta&keys=secret,plan,none")
    metrics = {tuple(sorted(labels)): value for (name, labels), value in chosen.items() if name == "shm_fleet_metric"}
    (other,) = [each["slug"] for each in server.get("applications").json() if each["slug"] != "ledger"]
    assert metrics == {
        (("app", "ledger"), ("key", "sent")): 16,
        (("app", "ledger"), ("key", "beta")): 2,
        (("app", other), ("key", "sent")): 7,
    }


def test_the_number_of_series_is_bounded(serve: Callable[..., ServerProcess], database: str) -> None:
    count = MAX_APPLICATIONS + 5
    execute(
        database,
        "INSERT INTO tallies (app_slug, metric_type, key, value, total, instances, counted_total, counted_instances) "
        "SELECT 'app-' || n, 'status', 'active', '0', 0, n, 0, n FROM generate_series(1, %s) n "
        "UNION ALL SELECT 'app-' || %s, 'version', '', n || '.0', 0, n, 0, n FROM generate_series(1, %s) n",
        count,
        count,
        MAX_RELEASES + 3,
    )
    server = serve()
    now = scrape_fleet(server)
    assert len({dict(labels)["app"] for _, labels in now}) == MAX_APPLICATIONS
    releases = {dict(labels)["version"]: value for (name, labels), value in now.items() if "version" in name}
    assert len(releases) == MAX_RELEASES + 1
    assert releases["other"] == 1 + 2 + 3
    too_many = ",".join(f"k{number}" for number in range(MAX_KEYS + 1))
    refused = get(server, f"?keys={too_many}")
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_parameter")


def test_the_fleet_is_for_viewers_also_with_public_metrics(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_METRICS_PUBLIC="true")
    assert plain_http.get(f"{server.url}/metrics").status_code == 200
    assert plain_http.get(f"{server.url}/metrics/fleet").status_code == 401
    body = {"name": "prometheus", "role": "viewer"}
    token = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=body, headers=server.headers).json()["token"]
    assert get(server, Authorization=f"Bearer {token}").status_code == 200
