"""The `/` filter: a small grammar, read as you type, that says in a sentence what it does not understand.

    word            any text of the row contains it             "two words"   the same, with a space
    -term           what the term does not match
    field:text      id app version os env mode, or a metric     version:1.4   1.4, 1.4.2, 1.4-rc, but not 1.40
    status:active   counted active uncounted silent pending revoked
    key>10          also >= < <= = !=, of a metric; numbers may end in k, M, B
    version>=1.4    of versions                                 seen<1h       of times: s m h d

All terms must match. A quoted name, `"version">3`, is always a metric's key.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from shm_client.model import Value
from shm_tui.model.columns import Moment, Row, value_text
from shm_tui.model.state import BY_WORD, State, state_of
from shm_tui.text.formatting import DAY, HOUR, MINUTE

Test = Callable[[Row, Moment], bool]

TEXT_FIELDS = {
    "id": "instance_id",
    "instance": "instance_id",
    "app": "app_name",
    "application": "app_name",
    "version": "app_version",
    "os": "os_arch",
    "env": "environment",
    "environment": "environment",
    "mode": "deployment_mode",
}
TIME_FIELDS = {"seen": "last_seen_at", "first": "first_seen_at"}
STATUS_FIELDS = ("status", "state")

# "Active" is the word of the whole project: seen within the window, counted or not. `counted` is what ● shows.
STATUSES = {word: frozenset({state}) for word, state in BY_WORD.items()} | {
    "active": frozenset({State.ACTIVE, State.UNCOUNTED}),
    "counted": frozenset({State.ACTIVE}),
}

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
NO_RANKS: Mapping[str, str] = {}
_TERM = re.compile(r'(-?)(?:("[^"]*"|[^\s"<>=!:]+)(>=|<=|!=|[<>=:]))?("[^"]*"|[^\s"]*)')
LONGEST = 1000  # characters of a filter; nobody types more, and Python reads no int of more than 4,300 digits

_EXACT = Context(prec=LONGEST)  # as many digits as can be typed
_FACTORS = {"": 1, "k": 1000, "m": 10**6, "b": 10**9, "t": 10**12}
_SECONDS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


class QueryError(ValueError):
    """What was typed is not a filter (yet); `str(error)` says what is wanted."""


class RankWanted(QueryError):
    """The filter compares with a version whose rank has to be asked for first."""

    def __init__(self, version: str) -> None:
        super().__init__(f"asking the server where version {version} stands")
        self.version = version


@dataclass(frozen=True, slots=True)
class Query:
    """A filter that was understood. `note` names metrics that nobody here has sent."""

    text: str
    tests: tuple[Test, ...] = ()
    note: str = ""
    timed: bool = False  # its answer changes as time passes, though no row does

    def matches(self, row: Row, moment: Moment) -> bool:
        return all(test(row, moment) for test in self.tests)

    def __bool__(self) -> bool:
        return bool(self.tests)


EVERYTHING = Query("")


def parse(text: str, keys: Iterable[str] = (), ranks: Mapping[str, str] = NO_RANKS) -> Query:
    """The filter that `text` asks for; `keys` are the metrics known here, `ranks` the server's ranks of versions.

    Raises RankWanted where a rank is missing, and QueryError for any other fault.
    """
    known = {key.casefold(): key for key in keys}
    tests: list[Test] = []
    unknown: list[str] = []
    timed = False
    if len(text) > LONGEST:
        raise QueryError(f"a filter has at most {LONGEST:,} characters")
    if text.count('"') % 2:
        raise QueryError('a quote is open: close it with "')
    for found in _TERM.finditer(text):
        minus, name, compare, value = found.groups()
        if not found[0]:
            continue
        if not name and not value:
            raise QueryError("what should “-” leave out?")
        test = _word(_unquoted(value)) if not name else _field(name, compare, _unquoted(value), known, unknown, ranks)
        timed = timed or _is_timed(name, _unquoted(value).casefold())
        tests.append(_negated(test) if minus else test)
    note = f"no instance here has sent “{unknown[0]}”" if unknown else ""
    return Query(text.strip(), tuple(tests), note, timed)


def _unquoted(text: str) -> str:
    return text[1:-1] if text.startswith('"') else text


def _is_timed(name: str | None, value: str) -> bool:
    """Whether a term looks at ages or states; a word does where it is part of a state's."""
    if name:
        return name.casefold() in (*TIME_FIELDS, *STATUS_FIELDS)
    return any(value in word for word in BY_WORD)


def _negated(test: Test) -> Test:
    return lambda row, moment: not test(row, moment)


def _word(word: str) -> Test:
    wanted = word.casefold()

    def test(row: Row, moment: Moment) -> bool:
        if row.haystack is None:
            row.haystack = _haystack(row)
        state = state_of(row.instance, moment.now, moment.active_window_s)
        return wanted in row.haystack or wanted in state.word

    return test


def _haystack(row: Row) -> str:
    one = row.instance
    texts = [one.instance_id, one.app_name, one.app_version, one.environment, one.deployment_mode, one.os_arch]
    for value in row.leaves.values():
        texts.append(value_text(value))
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            texts.append(f"{value}" if isinstance(value, Decimal) or abs(value) < 10**18 else "")
    # A line break cannot be typed, so no word matches across two texts.
    return "\n".join(texts).casefold()


def _field(
    name: str, compare: str, value: str, known: dict[str, str], unknown: list[str], ranks: Mapping[str, str]
) -> Test:
    plain = _unquoted(name)
    field = "" if name.startswith('"') else plain.casefold()
    if not value and compare != ":":
        raise QueryError(f"{plain}{compare} what?")
    if field in STATUS_FIELDS:
        return _status(field, compare, value.casefold())
    if field in TIME_FIELDS:
        return _time(field, compare, value)
    if field == "version":
        return _version(compare, value, ranks)
    if field in TEXT_FIELDS:
        return _text(field, compare, value.casefold())
    key = known.get(plain.casefold())
    if key is None:
        unknown.append(plain)
        key = plain
    return _metric(key, compare, value)


def _status(field: str, compare: str, word: str) -> Test:
    wanted = frozenset[State]().union(*(states for name, states in STATUSES.items() if name.startswith(word)))
    if word in STATUSES:
        wanted = STATUSES[word]
    if compare not in {":", "=", "!="} or not wanted:
        raise QueryError(f"{field}: is one of {' '.join(sorted(STATUSES))}")
    inside = compare != "!="
    return lambda row, m: (state_of(row.instance, m.now, m.active_window_s) in wanted) is inside


def _time(field: str, compare: str, value: str) -> Test:
    found = re.fullmatch(r"(\d+)([smhd])", value)
    if compare not in {">", ">=", "<", "<="} or not found:
        raise QueryError(f"{field} wants a time: {field}<1h, {field}>30d")
    limit, attribute, test = int(found[1]) * _SECONDS[found[2]], TIME_FIELDS[field], _COMPARE[compare]

    def within(row: Row, moment: Moment) -> bool:
        at = getattr(row.instance, attribute)
        return at is not None and test((moment.now - at).total_seconds(), limit)

    return within


def _version(compare: str, value: str, ranks: Mapping[str, str]) -> Test:
    if compare == ":":
        # A whole part at a time: 1.4 is in 1.4.2 and 1.4-rc, not in 1.40. While `1.` is being typed it is in 1.4.
        begins = re.compile(rf"v?{re.escape(value)}(?!(?<=\d)\d)", re.IGNORECASE)
        return lambda row, _: bool(begins.match(row.instance.app_version))
    if value not in ranks:
        raise RankWanted(value)
    wanted, test = ranks[value], _COMPARE[compare]
    return lambda row, _: bool(row.instance.app_version) and test(row.instance.version_rank, wanted)


def _text(field: str, compare: str, value: str) -> Test:
    attribute = TEXT_FIELDS[field]
    if compare == ":":
        return lambda row, _: value in getattr(row.instance, attribute).casefold()
    if compare not in {"=", "!="}:
        raise QueryError(f"{field} is a text: {field}:{value} or {field}={value}")
    equal = compare == "="
    return lambda row, _: (getattr(row.instance, attribute).casefold() == value) is equal


def _metric(key: str, compare: str, value: str) -> Test:
    if compare == ":":
        wanted = value.casefold()
        return lambda row, _: key in row.leaves and wanted in value_text(row.leaves[key]).casefold()
    number, text, test = _number(value), value.casefold(), _COMPARE[compare]
    of_texts = compare in {"=", "!="}
    if number is None and not of_texts:
        raise QueryError(f"{key}{compare} wants a number, not “{value}”")

    def compares(row: Row, _moment: Moment) -> bool:
        held: Value = row.leaves.get(key)
        if isinstance(held, int | Decimal) and not isinstance(held, bool) and number is not None:
            return test(held, number)
        return of_texts and held is not None and test(value_text(held).casefold(), text)

    return compares


def _number(text: str) -> Decimal | None:
    found = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d{1,3})?)([kmbt]?)", text.casefold())
    try:
        return _EXACT.multiply(Decimal(found[1]), Decimal(_FACTORS[found[2]])) if found else None
    except InvalidOperation:
        return None
