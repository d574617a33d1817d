"""The conditions of the parameter `where` of lists of instances: `version>=1.4`, `metrics.mail.sent>100`. Pure.

A condition is a field, an operator and a value; a `-` in front selects the instances that it does not. The console's
filter has the same fields and operators, and the same meaning of each.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from shm.analytics.instance_fields import TEXT_COLUMNS, TIME_COLUMNS
from shm.core.errors import BadRequest
from shm.core.metric_keys import MAX_DIGITS
from shm.core.releases import version_rank
from shm.core.settings.parsers import parse_duration
from shm.db.conditions import Condition, Conditions

MAX_CONDITIONS = 20  # in one request: far more than anybody writes
MAX_LENGTH = 1_000  # characters of a condition

EQUALITY = ("=", "!=")
RANGES = (">", ">=", "<", "<=")
OPPOSITE_OPERATORS = {">": "<", ">=": "<=", "<": ">", "<=": ">="}  # an age above a limit is a time before a moment

SHORT_NAMES = {
    "id": "instance_id",
    "instance": "instance_id",
    "app": "app_name",
    "application": "app_name",
    "os": "os_arch",
    "env": "environment",
    "mode": "deployment_mode",
}
TEXTS = SHORT_NAMES | {name: name for name in TEXT_COLUMNS if name != "app_version"}
AGES = {"seen": "last_seen_at", "first": "first_seen_at"}
VERSIONS = ("version", "app_version")
CHOICES = {
    "status": ("pending", "active", "revoked"),
    "state": ("active", "counted", "uncounted", "silent", "pending", "revoked"),
    "counted": ("true", "false"),
}
FIELDS = (*TEXTS, *VERSIONS, *CHOICES, *TIME_COLUMNS, *AGES)
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}  # the console shows yes and no

_CONDITION = re.compile(
    r'(?P<minus>-?)(?:metrics\.(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<key>[^<>=!:"][^<>=!:]*))|(?P<field>[a-z_]+))'
    r"(?P<operator>>=|<=|!=|[<>=:])(?P<value>[^\x00]*)",
    re.DOTALL,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)


def parse_condition(text: str, hiding_apps: Callable[[str], list[str]]) -> Condition:
    """The condition that a text states. `hiding_apps`: the applications that hide a metric. Raises BadRequest."""
    match = _CONDITION.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise _refusal(
            text,
            f"a field, one of = != > >= < <= : and a value, such as version>=1.4, of {MAX_LENGTH} characters at most",
        )
    name, operator, value = match["field"], match["operator"], match["value"]
    is_negated = bool(match["minus"])
    if name is None:
        key = match["key"] if match["quoted"] is None else match["quoted"].replace('""', '"')
        return _metric(text, key, operator, value, hiding_apps(key), is_negated)
    if name not in FIELDS:
        raise _refusal(text, f"one of the fields {', '.join(FIELDS)}, or metrics. and the key of a metric")
    if name in CHOICES:
        return _choice(text, name, operator, value, is_negated)
    if name in VERSIONS:
        parameters = _version(text, operator, value)
        return Condition("condition_version", parameters, is_negated)
    if name in TEXTS:
        _require(text, operator in (*EQUALITY, ":"), f"{name} with =, != or : (contains)")
        _require(text, bool(value) or operator != ":", "a text after the colon")
        parameters = {"column": TEXTS[name], "operator": operator, "value": value}
        return Condition("condition_text", parameters, is_negated)
    return Condition("condition_time", _time(text, name, operator, value), is_negated)


def _metric(text: str, key: str, operator: str, value: str, hiding_apps: list[str], is_negated: bool) -> Condition:
    number = _parse_number(value)
    _require(text, number is not None or operator not in RANGES, "a number after >, >=, < or <=")
    _require(text, bool(value) or operator != ":", "a text after the colon")
    parameters = {
        "key": key,
        "path": "strict $" + "".join(f".{json.dumps(part)}" for part in key.split(".")),
        "operator": operator,
        "value": value,
        "number": number,
        "boolean": BOOLEANS.get(value.lower()),
        "hiding_apps": hiding_apps,
    }
    return Condition("condition_metric", parameters, is_negated)


def _choice(text: str, name: str, operator: str, value: str, is_negated: bool) -> Condition:
    allowed = CHOICES[name]
    _require(
        text, operator in (*EQUALITY, ":") and value in allowed, f"{name}= or {name}!= and one of {', '.join(allowed)}"
    )
    is_negated = is_negated != (operator == "!=")
    if name == "counted":
        return Condition("condition_counted", {}, is_negated != (value == "false"))
    return Condition(f"condition_{name}", {"value": value}, is_negated)


def _version(text: str, operator: str, value: str) -> dict[str, object]:
    _require(text, bool(value), "a version")
    # 1.4 matches 1.4.2 and 1.4-rc, but not 1.40
    pattern = f"^v?{_escape(value)}" + (r"(?!\d)" if value[-1].isdigit() else "")
    return {"operator": operator, "rank": version_rank(value), "pattern": pattern}


def _time(text: str, name: str, operator: str, value: str) -> dict[str, object]:
    if name in AGES:
        _require(text, operator in RANGES, f"{name} with >, >=, < or <= and an age: {name}<1h")
        try:
            age = parse_duration(value)
        except ValueError as error:
            raise _refusal(text, str(error)) from None
        return {"column": AGES[name], "operator": OPPOSITE_OPERATORS[operator], "time": None, "age": age}
    _require(text, operator in RANGES, f"{name} with >, >=, < or <= and a time: {name}>=2026-11-01T00:00:00Z")
    return {"column": name, "operator": operator, "time": _parse_time(text, value), "age": None}


def _parse_time(text: str, value: str) -> datetime:
    try:
        time = msgspec.convert(f"{value}T00:00:00Z" if _DAY.fullmatch(value) else value, datetime)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise _refusal(text, "a day such as 2026-11-01, or a time of RFC 3339") from None


def _parse_number(value: str) -> Decimal | None:
    number = Decimal(value) if len(value) <= MAX_DIGITS and _NUMBER.fullmatch(value) else None
    return number if number is None or abs(number.adjusted()) <= MAX_DIGITS else None


def _escape(value: str) -> str:
    """A text as a part of a regular expression of PostgreSQL that matches it."""
    return re.sub(r"([^\w\s])", r"\\\1", value)


def _require(text: str, is_valid: bool, wanted: str) -> None:
    if not is_valid:
        raise _refusal(text, wanted)


def _refusal(text: str, wanted: str) -> BadRequest:
    shown = ascii(text)[1:-1]
    return BadRequest("bad_condition", f"where: {shown:.100} is no condition; wanted: {wanted}.")


def hiding_apps_of(hidden_keys: Mapping[str, frozenset[str]]) -> Callable[[str], list[str]]:
    """The applications that hide a metric, from the hidden keys by application."""
    return lambda key: [slug for slug, keys in hidden_keys.items() if key in keys]


def depend_on_time(conditions: Conditions) -> bool:
    """Whether an instance may meet the conditions now and not later, though it does not change itself."""
    return any(
        each.part in ("condition_counted", "condition_state") or each.parameters.get("age") is not None
        for each in conditions.all_of
    )
