"""The measured endpoints of the admin API as data, and a client that times requests."""

import http.client
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from bench.read.seeded_fleet import open_cursor
from bench.support.errors import InvalidRun
from shm.core import page_tokens
from shm.server.app import ADMIN, ROUTES
from shm.server.http.operations import operations_of

RESPONSE_TIMEOUT_S = 60
BASELINE_PATH = "tokens?limit=1"  # checks the token and reads a one-row table: the whole stack, little work
WARM_UP_REQUESTS = 5  # unmeasured requests on each connection, which fill plan and page caches


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`path` below the admin API. `is_constant`: its cost must not depend on the number of instances.

    `may_be_empty`: the seeded fleet has none of what it lists.
    """

    name: str
    path: str
    is_constant: bool = True
    may_be_empty: bool = False

    @property
    def route(self) -> str | None:
        """The pattern of its route, if this server has it and accepts its query."""
        parts = urlsplit(PathParameters("a", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "").path(self))
        for pattern, handler in ROUTES:
            if re.fullmatch(pattern, parts.path) and (get := operations_of(handler).get("get")) is not None:
                known = get.query.__struct_fields__ if get.query is not None else ()
                return pattern if set(parse_qs(parts.query, keep_blank_values=True)) <= set(known) else None
        return None


ENDPOINTS = (
    Endpoint("stats", "stats"),
    Endpoint("applications", "applications"),
    Endpoint("applications/{slug}", "applications/{app}"),
    Endpoint("kpis", "applications/{app}/kpis"),
    Endpoint("kpis, counted", "applications/{app}/kpis?counted=true"),
    Endpoint("kpis as of a day", "applications/{app}/kpis?at={yesterday}"),
    Endpoint("kpis of a version", "applications/{app}/kpis?version=2.5", is_constant=False),
    Endpoint("instances, first 50", "instances?limit=50"),
    Endpoint("instances, the middle", "instances?limit=50&after={after}"),
    Endpoint("instances, the last 50", "instances?limit=50&before=end"),
    Endpoint("instances around one", "instances?around={instance}&limit=50", is_constant=False),
    Endpoint("instances of an app", "instances?app={app}&limit=50"),
    Endpoint("one instance", "instances/{instance}"),
    Endpoint("its snapshots", "instances/{instance}/snapshots?limit=50"),
    Endpoint("metric-keys", "metric-keys?app={app}"),
    Endpoint("suggestions", "applications/{app}/suggestions", may_be_empty=True),
    Endpoint("audit", "audit?limit=50"),
    Endpoint("events", "events?limit=50"),
    Endpoint("bulk-changes", "bulk-changes?limit=50"),
    Endpoint("failed-removals", "failed-removals?limit=50", may_be_empty=True),
    Endpoint("metrics, 24h", "metrics/{app}?period=24h"),
    Endpoint("metrics, 7d", "metrics/{app}?period=7d"),
    Endpoint("metrics, 30d", "metrics/{app}?period=30d"),
    Endpoint("metrics, 3m", "metrics/{app}?period=3m"),
    Endpoint("metrics, 1y", "metrics/{app}?period=1y"),
    Endpoint("versions, 30d", "applications/{app}/versions?period=30d"),
    Endpoint("lifecycle, 30d", "applications/{app}/lifecycle?period=30d", is_constant=False),
    Endpoint("breakdown by version", "applications/{app}/breakdown?by=version"),
    Endpoint("breakdown by os_arch", "applications/{app}/breakdown?by=os_arch", is_constant=False),
    Endpoint("histogram", "applications/{app}/histogram?metric=users_active", is_constant=False),
    Endpoint("instances by a metric", "instances?app={app}&sort=metrics.users_active&limit=50"),  # requested again
    Endpoint(
        "the same, far down", "instances?app={app}&sort=metrics.users_active&limit=50&offset=2000", is_constant=False
    ),
    Endpoint("instances of a version", "instances?app={app}&where=version%3D2.5&limit=50"),
    Endpoint("pending instances", "instances?where=status%3Dpending&limit=50"),
    Endpoint("instances above a value", "instances?where=metrics.users_active%3E1&limit=50"),
    Endpoint("count above a value", "instances/count?where=metrics.users_active%3E1", is_constant=False),
    Endpoint("instances that match", "instances?q=stag&limit=50", is_constant=False),
)

UNMEASURED = {
    f"{ADMIN}/version-rank": "It reads nothing.",
    f"{ADMIN}/export": "It sends the whole fleet.",
    f"{ADMIN}/tokens": "It is the baseline.",
    f"{ADMIN}/feed": "bench.feed measures it.",
}


@dataclass(frozen=True, slots=True)
class PathParameters:
    """Values for the paths: an application, one of its instances, the page token of the list's middle."""

    app: str
    instance: str
    after: str

    @classmethod
    def read(cls, dsn: str) -> "PathParameters":
        """Of the largest application in the database."""
        with open_cursor(dsn) as cursor:
            cursor.execute("SELECT app_slug FROM instances GROUP BY app_slug ORDER BY count(*) DESC LIMIT 1")
            (app,) = cursor.fetchone()
            cursor.execute(
                "SELECT instance_id::text FROM instances WHERE app_slug = %s AND elapsed_windows = 0 LIMIT 1", (app,)
            )
            (instance,) = cursor.fetchone()
            cursor.execute(
                "SELECT coalesce(last_seen_at, '-infinity'), instance_id::text FROM instances "
                "ORDER BY 1 DESC, instance_id DESC OFFSET (SELECT count(*) / 2 FROM instances) LIMIT 1"
            )
            return cls(app, instance, page_tokens.encode_page_token(*cursor.fetchone()))

    def path(self, endpoint: Endpoint) -> str:
        """The full path of a request."""
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
        path = endpoint.path.format(app=self.app, instance=self.instance, after=self.after, yesterday=yesterday)
        return f"{ADMIN}/{path}"


class TimedClient:
    """One persistent connection and one request at a time, so that latencies contain no queueing."""

    def __init__(self, url: str, token: str, parameters: PathParameters) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=RESPONSE_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._parameters = parameters

    def request(self, endpoint: Endpoint) -> float:
        """Milliseconds until the response is read. Raises InvalidRun if it is not 200 or is empty."""
        return self.get(self._parameters.path(endpoint), may_be_empty=endpoint.may_be_empty)

    def get(self, path: str, *, may_be_empty: bool = False) -> float:
        """The same for a path."""
        started = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - started
        if response.status != http.client.OK or (body in (b"", b"[]", b"{}") and not may_be_empty):
            raise InvalidRun(f"{path} got {response.status}: {body[:300].decode(errors='replace')}")
        return seconds * 1e3

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
