"""What the admin API is asked for, as data, and a client that asks for it again and again."""

import http.client
import re
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from bench.read.seeded_fleet import connected
from bench.support.errors import Fault
from shm import marks
from shm.handlers.declared import operations_of
from shm.server import ADMIN, ROUTES

PATIENCE_S = 60
MARK = "tokens?limit=1"  # looks up its token, and reads one row of a table that has one row: no work, the whole stack
WARM_UP = 5  # requests on each connection before any counts: plans are made, pages of tables are read


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`path` below the admin API. `is_constant`: it is promised to cost the same at any size."""

    name: str
    path: str
    is_constant: bool = True

    @property
    def is_there(self) -> bool:
        """Whether this server knows its route and takes its query."""
        parts = urlsplit(
            f"{ADMIN}/{self.path.format(app='a', instance='0' * 8 + '-0000' * 3 + '-' + '0' * 12, after='')}"
        )
        for pattern, handler in ROUTES:
            if re.fullmatch(pattern, parts.path) and (get := operations_of(handler).get("get")) is not None:
                known = get.query.__struct_fields__ if get.query is not None else ()
                return set(parse_qs(parts.query, keep_blank_values=True)) <= set(known)
        return False


ENDPOINTS = (
    Endpoint("stats", "stats"),
    Endpoint("applications", "applications"),
    Endpoint("applications/{slug}", "applications/{app}"),
    Endpoint("kpis", "applications/{app}/kpis"),
    Endpoint("kpis, counted", "applications/{app}/kpis?counted=true"),
    Endpoint("instances, first 50", "instances?limit=50"),
    Endpoint("instances, the middle", "instances?limit=50&after={after}"),
    Endpoint("instances of an app", "instances?app={app}&limit=50"),
    Endpoint("one instance", "instances/{instance}"),
    Endpoint("its snapshots", "instances/{instance}/snapshots?limit=50"),
    Endpoint("metrics, 24h", "metrics/{app}?period=24h"),
    Endpoint("metrics, 7d", "metrics/{app}?period=7d"),
    Endpoint("metrics, 30d", "metrics/{app}?period=30d"),
    Endpoint("metrics, 3m", "metrics/{app}?period=3m"),
    Endpoint("metrics, 1y", "metrics/{app}?period=1y"),
    Endpoint("versions, 30d", "applications/{app}/versions?period=30d"),
    Endpoint("lifecycle, 30d", "applications/{app}/lifecycle?period=30d", is_constant=False),
    Endpoint("breakdown by version", "applications/{app}/breakdown?by=version"),
    Endpoint("breakdown by os_arch", "applications/{app}/breakdown?by=os_arch", is_constant=False),
    Endpoint("instances by a metric", "instances?app={app}&sort=metrics.users_active&limit=50", is_constant=False),
    Endpoint("instances that match", "instances?q=stag&limit=50", is_constant=False),
)


@dataclass(frozen=True, slots=True)
class Places:
    """What stands in paths: an application, one of its instances, the mark at the list's middle."""

    app: str
    instance: str
    after: str

    @classmethod
    def found(cls, dsn: str) -> "Places":
        """In the database; the largest application."""
        with connected(dsn) as cursor:
            cursor.execute("SELECT app_slug FROM instances GROUP BY app_slug ORDER BY count(*) DESC LIMIT 1")
            (app,) = cursor.fetchone()
            cursor.execute("SELECT instance_id::text FROM instances WHERE app_slug = %s AND lapsed = 0 LIMIT 1", (app,))
            (instance,) = cursor.fetchone()
            cursor.execute(
                "SELECT coalesce(last_seen_at, '-infinity'), instance_id::text FROM instances "
                "ORDER BY 1 DESC, instance_id DESC OFFSET (SELECT count(*) / 2 FROM instances) LIMIT 1"
            )
            return cls(app, instance, marks.mark(*cursor.fetchone()))

    def path(self, endpoint: Endpoint) -> str:
        """Of a request."""
        return f"{ADMIN}/{endpoint.path.format(app=self.app, instance=self.instance, after=self.after)}"


class Client:
    """One connection that is kept, and one request at a time: what an answer takes, and not what a crowd does."""

    def __init__(self, url: str, token: str, places: Places) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._places = places

    def ask(self, endpoint: Endpoint) -> float:
        """Milliseconds until its answer is read. Raises Fault where it is none of 200, or empty."""
        return self.get(self._places.path(endpoint))

    def get(self, path: str) -> float:
        """The same for any path."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != http.client.OK or body in (b"", b"[]", b"{}"):
            raise Fault(f"{path} was answered {answer.status}: {body[:300].decode(errors='replace')}")
        return took * 1e3

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
