"""The filter of the `/` prompt: a small language, parsed while it is typed.

    word            any text of the row contains it
    "two words"     the same, with a space
    -term           rows that do not match the term
    field:text      id app version os env mode, or a metric
    version:1.4     1.4, 1.4.2 and 1.4-rc, but not 1.40
    version>=1.4    this version and later ones
    status:active   counted active uncounted silent pending revoked
    seen<1h         s m h d since then; also first
    key>10          also >= < <= = !=, and k M B T after the number

All terms must match. A quoted name is always a metric: "version">3
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from shm_client.model import Value
from shm_tui.model.columns import APPLICATION, INSTANCE, TEXT_COLUMNS
from shm_tui.model.row import Row, format_value
from shm_tui.model.server_filter import (
    NO_SERVER_FILTER,
    ServerFilter,
    age_condition,
    combine,
    field_condition,
    lower_ascii,
    metric_condition,
)
from shm_tui.model.state import STATES_BY_LABEL, Clock, State, state_of
from shm_tui.text.formatting import DAY, HOUR, MINUTE

Predicate = Callable[[Row, Clock], bool]
Term = tuple[Predicate, str | None]  # with the server's condition, if it has one

# By the columns' names and labels: `environment` and `env`.
TEXT_FIELDS = {"id": INSTANCE.field, "app": APPLICATION.field} | {
    name: column.field for column in (INSTANCE, *TEXT_COLUMNS) for name in (column.id, column.label)
}
TIME_FIELDS = {"seen": "last_seen_at", "first": "first_seen_at"}
STATUS_FIELDS = ("status", "state")

# As in the API, "active" means seen within the active window, counted or not. `counted` is the state of ●.
STATUSES = {label: frozenset({state}) for label, state in STATES_BY_LABEL.items()} | {
    "active": frozenset({State.ACTIVE, State.UNCOUNTED}),
    "counted": frozenset({State.ACTIVE}),
}

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
BOOLEANS = {"true": "yes", "false": "no"}  # as JSON writes them, and as the table does
NO_RANKS: Mapping[str, str] = {}
NO_LABELS: Mapping[str, str] = {}
_MARKS = re.compile(r"[\W_]+")
_TERM = re.compile(r'(-?)(?:("[^"]*"|[^\s"<>=!:]+)(>=|<=|!=|[<>=:]))?("[^"]*"|[^\s"]*)')
MAX_FILTER_CHARS = 1000  # far more than anybody types; Python converts no int of more than 4,300 digits

_EXACT_CONTEXT = Context(prec=MAX_FILTER_CHARS)  # digits: a comparison must not round the number that was typed
_NUMBER_SUFFIXES = {"": 1, "k": 1000, "m": 10**6, "b": 10**9, "t": 10**12}
_UNIT_SECONDS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


class FilterError(ValueError):
    """The text is not a filter, or not yet. `str(error)` says what is expected."""


class MissingRankError(FilterError):
    """The filter compares with a version whose rank must be requested from the server first."""

    def __init__(self, version: str) -> None:
        super().__init__(f"requesting the rank of version {version}")
        self.version = version


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. `unknown_names` are those of metrics that no row had when it was parsed."""

    text: str
    predicates: tuple[Predicate, ...] = ()
    unknown_names: tuple[str, ...] = ()
    is_time_dependent: bool = False  # its result can change without a change of a row
    server_filter: ServerFilter = NO_SERVER_FILTER

    def matches(self, row: Row, clock: Clock) -> bool:
        """Whether a row matches every term."""
        return all(predicate(row, clock) for predicate in self.predicates)

    def warning(self, keys: Iterable[str]) -> str:
        """Names a metric that no instance has sent; "" if there is none. `keys` are those of the rows, as of now."""
        known = {key.casefold() for key in keys} if self.unknown_names else set()
        missing = [name for name in self.unknown_names if name.casefold() not in known]
        return f"no instance has sent “{missing[0]}”" if missing else ""

    def __bool__(self) -> bool:
        return bool(self.predicates)


MATCH_ALL = Filter("")


def parse_filter(
    text: str,
    keys: Iterable[str] = (),
    ranks: Mapping[str, str] = NO_RANKS,
    labels: Mapping[str, str] = NO_LABELS,
) -> Filter:
    """Parses `text`. `keys` are the metric keys of the rows, `ranks` the server's ranks by version.

    `labels` are the keys by the labels in the heads of the columns, so that a name can be typed as the screen shows it.
    Raises MissingRankError if a rank is missing, and FilterError for any other mistake.
    """
    keys_by_folded = _keys_by_name(list(keys), labels)
    predicates: list[Predicate] = []
    unknown_keys: list[str] = []
    conditions: list[str | None] = []
    is_time_dependent = False
    if len(text) > MAX_FILTER_CHARS:
        raise FilterError(f"a filter has at most {MAX_FILTER_CHARS:,} characters")
    if text.count('"') % 2:
        raise FilterError('a quote is not closed: add "')
    for term in _TERM.finditer(text):
        minus, name, comparison, value = term.groups()
        if not term[0]:
            continue
        if not name and not value:
            raise FilterError("expected a term after “-”")
        predicate, condition = (
            (_word_predicate(_unquote(value)), None)
            if not name
            else _field_term(name, comparison, _unquote(value), keys_by_folded, unknown_keys, ranks)
        )
        is_time_dependent = is_time_dependent or _is_time_dependent(name, _unquote(value).casefold())
        conditions.append(condition and minus + condition)
        predicates.append(_negate(predicate) if minus else predicate)
    return Filter(text.strip(), tuple(predicates), tuple(unknown_keys), is_time_dependent, combine(conditions))


def _keys_by_name(keys: list[str], labels: Mapping[str, str]) -> dict[str, str]:
    """The keys by each name that the filter accepts for them. A key's own spelling precedes similar names."""
    names = {_simplify(label): key for label, key in labels.items()}
    names |= {_simplify(key): key for key in keys}
    return names | {key.casefold(): key for key in keys}


def _simplify(name: str) -> str:
    """A name without the marks in which a label and its key differ: `Mail Sent` and `mail.sent` become `mail_sent`."""
    return _MARKS.sub("_", name.casefold()).strip("_")


def _unquote(text: str) -> str:
    return text[1:-1] if text.startswith('"') else text


def _is_time_dependent(name: str | None, value: str) -> bool:
    """Whether a term depends on ages or states. A word does if it is part of a state's label."""
    if name:
        return name.casefold() in (*TIME_FIELDS, *STATUS_FIELDS)
    return any(value in label for label in STATES_BY_LABEL)


def _negate(predicate: Predicate) -> Predicate:
    return lambda row, clock: not predicate(row, clock)


def _word_predicate(word: str) -> Predicate:
    folded = word.casefold()

    def predicate(row: Row, clock: Clock) -> bool:
        if row.search_text is None:
            row.search_text = _search_text(row)
        state = state_of(row.instance, clock)
        return folded in row.search_text or folded in state.label

    return predicate


def _search_text(row: Row) -> str:
    instance = row.instance
    texts = [instance.instance_id, *(str(getattr(instance, column.field)) for column in TEXT_COLUMNS)]
    for value in row.metrics.values():
        texts.append(format_value(value))
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            texts.append(f"{value}" if isinstance(value, Decimal) or abs(value) < 10**18 else "")
    # A filter cannot contain a line break, so no word matches across two texts.
    return "\n".join(texts).casefold()


def _field_term(
    name: str,
    comparison: str,
    value: str,
    keys_by_folded: dict[str, str],
    unknown_keys: list[str],
    ranks: Mapping[str, str],
) -> Term:
    plain = _unquote(name)
    field = "" if name.startswith('"') else plain.casefold()
    if not value and comparison != ":":
        raise FilterError(f"expected a value after {plain}{comparison}")
    if field in STATUS_FIELDS:
        return _status_term(field, comparison, value.casefold())
    if field in TIME_FIELDS:
        return _time_term(field, comparison, value)
    if field == "version":
        return _version_predicate(comparison, value, ranks), field_condition(field, comparison, value)
    if field in TEXT_FIELDS:
        return _text_predicate(field, comparison, lower_ascii(value)), field_condition(field, comparison, value)
    key = keys_by_folded.get(plain.casefold()) or keys_by_folded.get(_simplify(plain))
    if key is None:
        unknown_keys.append(plain)
        key = plain
    number = _parse_number(value)
    predicate = _metric_predicate(key, comparison, value, number)
    return predicate, metric_condition(key, comparison, value, number)


def _states(word: str) -> frozenset[State]:
    """The states that a word or its beginning names."""
    if word in STATUSES:
        return STATUSES[word]
    return frozenset[State]().union(*(group for name, group in STATUSES.items() if name.startswith(word)))


def _status_term(field: str, comparison: str, word: str) -> Term:
    states = _states(word)
    if comparison not in {":", "=", "!="} or not states:
        raise FilterError(f"{field}: is one of {' '.join(sorted(STATUSES))}")
    is_included = comparison != "!="
    name = next((name for name, group in STATUSES.items() if group == states), None)
    condition = None if name is None else f"state{'=' if is_included else '!='}{name}"
    return lambda row, clock: (state_of(row.instance, clock) in states) is is_included, condition


def _time_term(field: str, comparison: str, value: str) -> Term:
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if comparison not in {">", ">=", "<", "<="} or not match:
        raise FilterError(f"{field} is compared with a time: {field}<1h, {field}>30d")
    limit_s, attribute, test = int(match[1]) * _UNIT_SECONDS[match[2]], TIME_FIELDS[field], _OPERATORS[comparison]

    def predicate(row: Row, clock: Clock) -> bool:
        time = getattr(row.instance, attribute)
        return time is not None and test((clock.now - time).total_seconds(), limit_s)

    return predicate, age_condition(field, comparison, int(match[1]), match[2])


def _version_predicate(comparison: str, value: str, ranks: Mapping[str, str]) -> Predicate:
    if comparison == ":":
        # A prefix of whole parts: 1.4 matches 1.4.2 and 1.4-rc, but not 1.40. `1.` matches 1.4, while it is typed.
        prefix = re.compile(rf"v?{re.escape(value)}(?!(?<=\d)\d)", re.IGNORECASE)
        return lambda row, _: bool(prefix.match(row.instance.app_version))
    if value not in ranks:
        raise MissingRankError(value)
    rank, test = ranks[value], _OPERATORS[comparison]
    return lambda row, _: bool(row.instance.app_version) and test(row.instance.version_rank, rank)


def _text_predicate(field: str, comparison: str, value: str) -> Predicate:
    attribute = TEXT_FIELDS[field]
    if comparison == ":":
        return lambda row, _: value in lower_ascii(getattr(row.instance, attribute))
    if comparison not in {"=", "!="}:
        raise FilterError(f"{field} is a text: {field}:{value} or {field}={value}")
    is_equal = comparison == "="
    return lambda row, _: (lower_ascii(getattr(row.instance, attribute)) == value) is is_equal


def _metric_predicate(key: str, comparison: str, value: str, number: Decimal | None) -> Predicate:
    text = lower_ascii(value)
    if comparison == ":":
        return lambda row, _: key in row.metrics and text in lower_ascii(format_value(row.metrics[key]))
    test = _OPERATORS[comparison]
    compares_texts = comparison in {"=", "!="}
    if number is None and not compares_texts:
        raise FilterError(f"{key}{comparison} is compared with a number, not “{value}”")

    def predicate(row: Row, _clock: Clock) -> bool:
        metric: Value = row.metrics.get(key)
        if isinstance(metric, int | Decimal) and not isinstance(metric, bool) and number is not None:
            return test(metric, number)
        written = BOOLEANS.get(text, text) if isinstance(metric, bool) else text
        return compares_texts and metric is not None and test(lower_ascii(format_value(metric)), written)

    return predicate


def _parse_number(text: str) -> Decimal | None:
    match = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d{1,3})?)([kmbt]?)", text.casefold())
    try:
        return _EXACT_CONTEXT.multiply(Decimal(match[1]), Decimal(_NUMBER_SUFFIXES[match[2]])) if match else None
    except InvalidOperation:
        return None
