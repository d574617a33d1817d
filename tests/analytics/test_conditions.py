"""The conditions of `where` select what a brute-force evaluation of the list selects; usual ones have an index."""

import itertools
import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.analytics.conditions import MAX_CONDITIONS, TEXTS, parse_condition
from shm.analytics.instance_fields import TIME_COLUMNS
from shm.core.page_tokens import parse_timestamp
from shm.core.releases import version_rank
from shm.db.conditions import Conditions
from shm.db.statements import statements
from tests.support import plain_http
from tests.support.bulk_fleet import insert_fleet
from tests.support.databases import admin_cursor, fresh_database
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

VALUES: list[Any] = [0, 5, -1, 2**70, 1.5, True, False, "", "Pro", "pro+", "5", "yes", "x" * 70, None, [1, 2], {"a": 1}]
VERSIONS = ["1.4", "v1.4.0", "1.4.2", "1.40", "1.4-rc1", "2.0", "main"]
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
RANGES = [">", ">=", "<", "<="]
RARE_VALUES = """
    UPDATE instances SET
        version_rank = CASE (metrics ->> 'n')::int %% 500 WHEN 1 THEN %s WHEN 2 THEN %s ELSE %s END,
        status = CASE (metrics ->> 'n')::int %% 500 WHEN 3 THEN 'pending' WHEN 4 THEN 'revoked' ELSE 'active' END
"""


@dataclass(frozen=True)
class Fleet:
    """A server, its database, and the instances in its list."""

    server: ServerProcess
    database: str
    items: list[dict[str, Any]]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Instances in each state, with metrics of every type."""
    with module_server(postgres, tmp_path_factory.mktemp("conditions")) as (server, dsn):
        for number, value in enumerate([*VALUES, ...]):
            install = Install(
                server.url,
                app_name=("Ledger", "Café [Board]")[number % 2],
                app_version=VERSIONS[number % len(VERSIONS)],
                environment=("production", "CI", "Straße")[number % 3],
                deployment_mode=("docker", "")[number % 2],
            )
            metrics = {} if value is ... else {"v": value, "mail": {"sent": number % 4}, 'a "b" <c>': number % 2}
            install.enroll(metrics)
            if number % 7 == 0:
                address = f"{server.url}/api/v1/admin/instances/{install.instance_id}/revoke"
                plain_http.post(address, headers=server.headers).raise_for_status()
        Install(server.url).register()
        with admin_cursor(dsn) as cursor:
            cursor.execute(
                "UPDATE instances SET last_seen_at = last_seen_at - interval '31 days' WHERE app_version = '1.4.2'"
            )
            times = ", ".join(f"{name} = coalesce({name}, now())" for name in TIME_COLUMNS)  # of a new column too
            one = "SELECT max(instance_id::text)::uuid FROM instances WHERE status = 'active'"
            cursor.execute(f"UPDATE instances SET {times} WHERE instance_id = ({one})")  # noqa: S608
        listed = server.get("instances?limit=1000").content
        yield Fleet(server, dsn, json.loads(listed, parse_float=Decimal))


@dataclass(frozen=True)
class Term:
    """A condition without its `-`."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{self.value}"

    def matches(self, item: dict[str, Any], now: datetime) -> bool:
        """The definition in docs/api.md."""
        if self.field.startswith("metrics."):
            return self._matches_metric(find_metric(item["metrics"], self.field.removeprefix("metrics.").strip('"')))
        if self.field in TEXTS:
            text, value = lower_ascii(item[TEXTS[self.field]]), lower_ascii(self.value)
            return value in text if self.operator == ":" else OPERATORS[self.operator](text, value)
        if self.field == "version":
            version = item["app_version"]
            if self.operator == ":":
                number = str(version).removeprefix("v")
                rest = number.removeprefix(self.value)
                return rest != number and not (rest[:1].isdigit() and self.value[-1].isdigit())
            return OPERATORS[self.operator](version_rank(version), version_rank(self.value))
        if self.field in ("status", "state", "counted"):
            is_equal = self.value in facts(item, now)[self.field]
            return is_equal is (self.operator == "=")
        seen = item["last_seen_at"]
        if self.field == "seen":
            age = timedelta(days=int(self.value[:-1]))
            return seen is not None and OPERATORS[self.operator](now - parse_timestamp(seen), age)
        return seen is not None and OPERATORS[self.operator](parse_timestamp(seen), parse_timestamp(self.value))

    def _matches_metric(self, metric: Any) -> bool:
        if metric is None or isinstance(metric, dict):
            return False
        is_number = isinstance(metric, int | Decimal) and not isinstance(metric, bool)
        if self.operator in RANGES:
            return is_number and OPERATORS[self.operator](metric, Decimal(self.value))
        text = {True: "yes", False: "no"}[metric] if isinstance(metric, bool) else metric
        if self.operator == ":":
            return isinstance(text, str) and lower_ascii(self.value) in lower_ascii(text)
        if is_number:
            is_equal = self.value.strip("-").isdigit() and metric == Decimal(self.value)
        else:
            spelled = (
                {"true": "yes", "false": "no"}.get(self.value, self.value) if metric in (True, False) else self.value
            )
            is_equal = isinstance(text, str) and lower_ascii(spelled) == lower_ascii(text)
        return is_equal is (self.operator == "=")


def lower_ascii(text: str) -> str:
    """The text in lower case, of ASCII letters only."""
    return "".join(character.lower() if character.isascii() else character for character in text)


def find_metric(metrics: dict[str, Any], key: str) -> Any:
    """The value of a metric by its key, whose parts are joined by dots."""
    if key in metrics:
        return metrics[key]
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def facts(item: dict[str, Any], now: datetime) -> dict[str, set[str]]:
    """The values that apply to an item, by field."""
    counted = "true" if item["counted"] else "false"
    state = {item["status"]}
    if item["status"] == "active":
        is_silent = now - parse_timestamp(item["last_seen_at"]) > timedelta(days=30)
        state = {"silent"} if is_silent else {"active", "counted" if item["counted"] else "uncounted"}
    return {"status": {item["status"]}, "state": state, "counted": {counted}}


def terms_of(fields: list[str], operators: list[str], values: list[str]) -> st.SearchStrategy[Term]:
    return st.builds(Term, st.sampled_from(fields), st.sampled_from(operators), st.sampled_from(values))


terms = st.one_of(
    terms_of(["metrics.v", "metrics.mail.sent", "metrics.nobody"], RANGES, ["0", "1", "1.5", "-7", "1e3", f"{2**69}"]),
    terms_of(['metrics."a "b" <c>"'.replace('"b"', "x"), "metrics.mail.sent"], ["=", "!="], ["0", "1"]),
    terms_of(["metrics.v"], ["=", "!="], ["5", "-1", "pro", "PRO", "yes", "true", "no", "", "x" * 70]),
    terms_of(["metrics.v.0", "metrics.v.a"], ["=", "!=", ">="], ["1", "2"]),
    terms_of(["metrics.v"], [":"], ["p", "+", "YE", "5", "x" * 66]),
    terms_of(["env"], ["=", "!=", ":"], ["production", "ci", "stra", "STRAßE", "straSSe", "%"]),
    terms_of(
        ["app", "os", "mode"], ["=", "!="], ["ledger", "café [board]", "CAFÉ [BOARD]", "linux/amd64", "docker", ""]
    ),
    terms_of(["id", "app"], [":"], ["a", "[", "\\", "'", "é"]),
    terms_of(["version"], [*OPERATORS, ":"], ["1.4", "1.4.0", "2.0", "main", "1", "1.4."]),
    terms_of(["status"], ["=", "!="], ["pending", "active", "revoked"]),
    terms_of(["state"], ["=", "!="], ["active", "counted", "uncounted", "silent", "pending", "revoked"]),
    terms_of(["counted"], ["=", "!="], ["true", "false"]),
    terms_of(["seen"], RANGES, ["1d", "30d", "40d"]),
    terms_of(["last_seen_at"], RANGES, [(datetime.now(UTC) - timedelta(days=3)).isoformat().replace("+00:00", "Z")]),
)


@pytest.mark.parametrize(
    "max_examples", [pytest.param(25, id="short"), pytest.param(3_000, id="long", marks=pytest.mark.long)]
)
def test_conditions_equal_a_brute_force_evaluation(fleet: Fleet, max_examples: int) -> None:
    numbers = itertools.count()

    @settings(max_examples=max_examples, derandomize=max_examples < 1_000)
    @given(chosen=st.lists(st.tuples(terms, st.booleans()), min_size=1, max_size=3))
    def check(chosen: list[tuple[Term, bool]]) -> None:
        now = datetime.now(UTC)
        expected = {
            item["instance_id"]
            for item in fleet.items
            if all(term.matches(item, now) is not is_negated for term, is_negated in chosen)
        }
        where = [("-" if is_negated else "") + str(term) for term, is_negated in chosen]
        path = ("instances/count", "instances", "instances?sort=metrics.v", "export?format=jsonl")[next(numbers) % 4]
        address = f"{fleet.server.url}/api/v1/admin/{path}"
        with plain_http.Client(headers=fleet.server.headers) as client:
            merged = client.build_request("GET", address).url.copy_merge_params({"where": where})
            response = client.get(merged).raise_for_status()
        if path == "instances/count":
            assert response.json() == {"instances": len(expected)}, where
            return
        items = response.text.splitlines() if path.startswith("export") else map(json.dumps, response.json())
        assert {json.loads(item)["instance_id"] for item in items} == expected, where

    check()


@pytest.mark.parametrize("name", [*sorted({*TEXTS.values()}), *TIME_COLUMNS])
def test_every_column_has_a_condition_and_an_order(fleet: Fleet, name: str) -> None:
    values = [item[name] for item in fleet.items if item[name] is not None]
    wanted = values if name in TIME_COLUMNS else [value for value in values if value == max(values)]
    condition = f"{name}>={min(values)}" if name in TIME_COLUMNS else f"{name}={max(values)}"
    params = {"where": condition, "sort": name, "order": "asc"}
    address = f"{fleet.server.url}/api/v1/admin/instances"
    response = plain_http.get(address, params=params, headers=fleet.server.headers).raise_for_status()
    assert [item[name] for item in response.json()] == sorted(wanted)


def test_an_element_of_an_array_is_no_metric(fleet: Fleet) -> None:
    count = "instances/count?where=metrics.v."
    assert fleet.server.get(f"{count}a%3D1").json() == {"instances": 1}
    for condition in ("0%3D1", "0%3E0", "1!%3D7"):
        assert fleet.server.get(count + condition).json() == {"instances": 0}


def test_a_hidden_metric_matches_nothing(fleet: Fleet) -> None:
    server = fleet.server
    Install(server.url, app_name="Hides").enroll({"secret": 5})
    address = f"{server.url}/api/v1/admin/applications/hides"
    query = "instances/count?app=hides&where=metrics.secret%3D5"
    assert server.get(query).json() == {"instances": 1}
    overrides = {"overrides": {"secret": {"hidden": True}}}
    plain_http.request("PUT", address, headers=server.headers, json=overrides).raise_for_status()
    assert server.get(query).json() == {"instances": 0}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "a field, one of"),
        ("version", "a field, one of"),
        ("metrics.>5", "a field, one of"),
        ("env=a\x00", "a field, one of"),
        ("x" * 1001, "a field, one of"),
        ("colour=red", "one of the fields id,"),
        ("env>5", "env with =, != or :"),
        ("env:", "a text after the colon"),
        ("version>=", "a version"),
        ("status=silent", "status= or status!= and one of pending, active, revoked"),
        ("state>active", "state= or state!= and one of active,"),
        ("metrics.sent>many", "a number after"),
        ("metrics.sent>1e9999", "a number after"),
        ("metrics.sent:", "a text after the colon"),
        ("seen=1h", "seen with >"),
        ("seen<soon", "a duration such as 90s"),
        ("last_seen_at>yesterday", "or a time of RFC 3339"),
        ("last_seen_at>0001-01-01T00:00:00+23:59", "or a time of RFC 3339"),
    ],
)
def test_a_refusal_says_what_was_wanted(fleet: Fleet, text: str, wanted: str) -> None:
    for path in ("instances", "instances/count", "export"):
        with plain_http.Client(headers=fleet.server.headers) as client:
            response = client.get(f"{fleet.server.url}/api/v1/admin/{path}", params={"where": text})
        assert (response.status_code, response.json()["code"]) == (400, "bad_condition")
        assert wanted in response.json()["detail"]
    many = "&".join(["where=env:a"] * (MAX_CONDITIONS + 1))
    response = plain_http.get(f"{fleet.server.url}/api/v1/admin/{path}?{many}", headers=fleet.server.headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_parameter")


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (["version=1.3.0"], "instances_by_version"),
        (["version<1.0.1", "env=production"], "instances_by_version"),
        (["status=pending"], "instances_by_status"),
        (["state=pending"], "instances_by_status"),
        (["state=revoked", "version>=1.4"], "instances_by_status"),
        (["seen<1h"], "instances_by_"),  # by the time, also within each application
        (["seen<=10m", "metrics.n>5"], "instances_by_"),
    ],
)
def test_usual_conditions_have_an_index(
    large_database: psycopg2.extensions.cursor, where: list[str], index: str
) -> None:
    """Of 30,000 instances, the count reads those that match, and not all."""
    plan = explain(large_database, "lists.count_instances", where)
    assert index in plan, plan
    assert "Seq Scan on instances" not in plan, plan


@pytest.mark.parametrize("where", [["env=production"], ["metrics.n>5"], ["version>=1.0"], ["os:linux", "counted=true"]])
def test_the_first_page_of_frequent_matches_reads_no_others(
    large_database: psycopg2.extensions.cursor, where: list[str]
) -> None:
    """The list is in the order of an index, so that a condition which many instances fulfil costs one page."""
    plan = explain(large_database, "lists.select_newest", where)
    assert "instances_by_last_seen" in plan, plan
    assert "Seq Scan on instances" not in plan, plan


@pytest.fixture(scope="module")
def large_database(postgres: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in a database of 30,000 instances, a few of which are pending, revoked or of an old version."""
    with fresh_database(postgres) as dsn:
        insert_fleet(dsn, 30_000)
        with admin_cursor(dsn) as cursor:
            cursor.execute(RARE_VALUES, [version_rank("1.3.0"), version_rank("1.0"), version_rank("2.0")])
            cursor.execute("VACUUM ANALYZE instances")
            yield cursor


def explain(cursor: psycopg2.extensions.cursor, name: str, where: list[str]) -> str:
    """The plan of a statement."""
    conditions = Conditions([parse_condition(text, lambda _: []) for text in where])
    filters = dict.fromkeys(("slug", "status", "version_rank", "environment", "pattern", "after_id", "after_seen"))
    parameters = {**filters, "conditions": conditions, "limit": 50, "offset": 0, "max_bytes": 2**22}
    sql = statements()[name].sql.removeprefix("SET LOCAL statement_timeout = '10s';")
    cursor.execute(f"EXPLAIN {sql}", parameters)
    return "\n".join(line for (line,) in cursor.fetchall())
