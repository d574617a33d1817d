"""Random fleets for property tests: reports of installs, decisions of admins and the passing of time.

`scenarios` generates them as data that hypothesis can shrink; `run_scenario` sends one to a real server. To add a
kind of event, add a class with a method `apply` and an entry in `events`.
"""

import atexit
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
from hypothesis import strategies as st

from shm.core.aggregates import Aggregate
from tests.support import plain_http
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.time_travel import shift_times

APPS = ("Ledger", "Kiosk")
SLUGS = ("ledger", "kiosk")
ENVIRONMENTS = ("production", "Dev", "ci", "")
VERSIONS = ("1.0", "v1.0.0", "1.10", "1.9+b", "2.0-rc1", "main")
MAX_SNAPSHOT_AGE = timedelta(days=30)  # the server's default
MAX_CLOCK_SKEW = timedelta(minutes=5)

_client = plain_http.Client(timeout=60)
atexit.register(_client.close)


@dataclass
class Fleet:
    """Installs and their server. Timestamps of snapshots are relative to `started_at`."""

    server: ServerProcess
    database: str
    started_at: datetime
    roll_up: Callable[[], None]
    installs: list[Install] = field(default_factory=list)

    def install(self, number: int) -> Install:
        """The install with this number, modulo the number of installs."""
        return self.installs[number % len(self.installs)]

    def request_admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Sends a request of an admin."""
        url = f"{self.server.url}/api/v1/admin/{path}"
        return _client.request(method, url, headers=self.server.headers, json=body)


@dataclass(frozen=True)
class Age:
    """The age of a snapshot at the start of the fleet, or at the full hour before the start."""

    hours: int = 0
    minutes: int = 0
    microseconds: int = 0
    of_the_hour: bool = False

    def before(self, started_at: datetime) -> datetime:
        """The timestamp of a snapshot of this age."""
        if self.of_the_hour:
            started_at = started_at.replace(minute=0, second=0, microsecond=0)
        return started_at - timedelta(hours=self.hours, minutes=self.minutes, microseconds=self.microseconds)


@dataclass(frozen=True)
class SnapshotContent:
    """The content of a snapshot."""

    age: Age
    metrics: dict[str, Any]
    version: str | None = None

    def as_sent(self, started_at: datetime) -> dict[str, Any]:
        """The snapshot as a member of a backlog."""
        at = self.age.before(started_at).isoformat().replace("+00:00", "Z")
        return {"timestamp": at, "metrics": self.metrics} | ({"app_version": self.version} if self.version else {})


@dataclass(frozen=True)
class SendSnapshot:
    """An install sends a snapshot."""

    index: int
    content: SnapshotContent

    def apply(self, fleet: Fleet) -> None:
        """The server stores it, unless its timestamp is out of range or the install is revoked."""
        install = fleet.install(self.index)
        body = {"instance_id": install.instance_id, **self.content.as_sent(fleet.started_at)}
        at = datetime.fromisoformat(body["timestamp"])
        raw = json.dumps(body).encode()
        status = install.post("/v1/snapshot", raw, install.signed(raw)).status_code
        now = datetime.now(UTC)
        if status != 403:
            assert status == (202 if now - MAX_SNAPSHOT_AGE <= at <= now + MAX_CLOCK_SKEW else 400)


@dataclass(frozen=True)
class SendBacklog:
    """An install sends several snapshots in one request, in any order."""

    index: int
    contents: list[SnapshotContent]

    def apply(self, fleet: Fleet) -> None:
        """The server accepts the request, unless the install is revoked."""
        install = fleet.install(self.index)
        members = [content.as_sent(fleet.started_at) for content in self.contents]
        raw = json.dumps({"instance_id": install.instance_id, "snapshots": members}).encode()
        assert install.post("/v1/snapshots", raw, install.signed(raw)).status_code in (202, 403)


@dataclass(frozen=True)
class Reregister:
    """An install registers with other data. They take effect with the next signed request, which `activates` sends."""

    index: int
    app: str
    version: str
    environment: str
    activates: bool

    def apply(self, fleet: Fleet) -> None:
        """Sends what the official clients send at each start."""
        install = fleet.install(self.index)
        install.app_name, install.app_version, install.environment = self.app, self.version, self.environment
        assert install.register().status_code in (200, 201, 403)
        if self.activates:
            assert install.activate().status_code in (200, 403)


@dataclass(frozen=True)
class ChangeStatus:
    """An admin approves or revokes an install."""

    index: int
    action: str

    def apply(self, fleet: Fleet) -> None:
        """The instance may be deleted or revoked already."""
        path = f"instances/{fleet.install(self.index).instance_id}/{self.action}"
        assert fleet.request_admin("POST", path).status_code in (200, 404, 409)


@dataclass(frozen=True)
class Erase:
    """An install erases its data."""

    index: int

    def apply(self, fleet: Fleet) -> None:
        """The install may register again later."""
        install = fleet.install(self.index)
        payload = {"action": "erase", "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
        raw = json.dumps(payload).encode()
        assert install.post("/v1/erase", raw, install.signed(raw)).status_code in (200, 403)


@dataclass(frozen=True)
class SetOverrides:
    """An admin overrides labels, kinds, aggregates or units of metrics, or hides them."""

    slug: str
    overrides: dict[str, Any]

    def apply(self, fleet: Fleet) -> None:
        """The application may not exist yet."""
        status = fleet.request_admin("PUT", f"applications/{self.slug}", {"overrides": self.overrides}).status_code
        assert status in (200, 404)


@dataclass(frozen=True)
class RollUp:
    """A rollup runs."""

    def apply(self, fleet: Fleet) -> None:
        """All stored snapshots are in the series afterwards."""
        fleet.roll_up()


@dataclass(frozen=True)
class AdvanceTime:
    """Days pass without a report."""

    days: int

    def apply(self, fleet: Fleet) -> None:
        """Moves all timestamps into the past."""
        shift_times(fleet.database, timedelta(days=self.days))


Event = SendSnapshot | SendBacklog | Reregister | ChangeStatus | Erase | SetOverrides | RollUp | AdvanceTime


@dataclass(frozen=True)
class Scenario:
    """The installs at the beginning and the events after it."""

    installs: list[tuple[str, str]]  # application and environment
    events: list[Event]


def run_scenario(scenario: Scenario, fleet: Fleet, after_time: Callable[[], None]) -> None:
    """Applies the events. Calls `after_time` after each `AdvanceTime`, before any other event."""
    for app, environment in scenario.installs:
        install = Install(fleet.server.url, app_name=app, app_version=VERSIONS[0], environment=environment)
        assert install.register().status_code == 201
        fleet.installs.append(install)
    for event in scenario.events:
        event.apply(fleet)
        if isinstance(event, AdvanceTime):
            after_time()


senders = st.integers(0, 3)
apps = st.sampled_from(APPS)
environments = st.sampled_from(ENVIRONMENTS)
versions = st.sampled_from(VERSIONS)

# Around now, around full hours to the microsecond, and anywhere in the accepted range. The values are few, so some are
# equal.
ages = (
    st.builds(Age, minutes=st.sampled_from([0, 1, 20, 59, 60, 61, -4]))
    | st.builds(
        Age,
        hours=st.sampled_from([0, 1, 2, 23, 24, 25, 48, 72, 7 * 24, 28 * 24]),
        microseconds=st.integers(-1, 1),
        of_the_hour=st.just(True),
    )
    | st.builds(Age, hours=st.integers(0, 719))
)

numbers = (
    st.integers(-5, 5)
    | st.integers(-(2**70), 2**70)
    | st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4))
    | st.sampled_from([0.1, 1e300, -1e300, 1.7976931348623157e308, 5e-324, 1e-20, 0.0, -0.0])
)
texts = st.sampled_from(["postgres", "sqlite", "", "x" * 64, "x" * 65])
values = numbers | numbers | st.booleans() | texts | st.none() | st.just([1, 2])
keys = st.sampled_from(["sent", "mem_mb", "hitRate", "beta", "plan"])
flat_metrics = st.dictionaries(keys, values, max_size=4)
metrics = st.builds(
    lambda flat, mail, ephemeral: (
        flat | ({} if mail is None else {"mail": mail}) | ({} if ephemeral is None else {"sys_ephemeral": ephemeral})
    ),
    flat_metrics,
    st.none() | flat_metrics | numbers,
    st.sampled_from([None, None, None, True, False]),
)
contents = st.builds(SnapshotContent, ages, metrics, st.none() | versions)

overrides = st.dictionaries(
    keys | st.sampled_from(["mail.sent", "mail"]),
    st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["business", "system"]),
            "aggregate": st.sampled_from(get_args(Aggregate)),
            "label": st.just("A label"),
            "unit": st.sampled_from(["", "EUR"]),
            "hidden": st.booleans(),
        },
    ),
    max_size=3,
)

sends = st.builds(SendSnapshot, senders, contents)
backlogs = st.builds(SendBacklog, senders, st.lists(contents, min_size=1, max_size=6))
registers = st.builds(Reregister, senders, apps, versions, environments, st.booleans())
time_steps = st.builds(AdvanceTime, st.sampled_from([1, 1, 2, 6, 7, 23, 29, 30, 31]))
rare_events = (
    st.builds(ChangeStatus, senders, st.sampled_from(["approve", "revoke"]))
    | st.builds(Erase, senders)
    | st.builds(SetOverrides, st.sampled_from(SLUGS), overrides)
)
events = sends | sends | backlogs | registers | rare_events | time_steps | st.just(RollUp())
initial_installs = st.lists(st.tuples(apps, environments), min_size=1, max_size=4)
scenarios = st.builds(Scenario, initial_installs, st.lists(events, min_size=1, max_size=12))
