"""The `/` filter: each line of its grammar, its error messages, and arbitrary texts."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.core.releases import version_rank
from shm_tui.model.filter import MAX_FILTER_CHARS, FilterError, MissingRankError, parse_filter
from shm_tui.model.row import Row
from shm_tui.text.formatting import DAY, HOUR
from tests.support.console_rows import CLOCK, row

LEDGER = row(
    "0f4c1e7a-1111-4222-8333-444455556666",
    2 * HOUR,
    app_name="Ledger Pro",
    app_version="1.4.2",
    environment="Production",
    deployment_mode="docker",
    os_arch="linux/amd64",
    metrics={
        "invoices_sent": 45_721,
        "ratio": Decimal("0.50"),
        "beta": True,
        "db": "Postgres 16",
        "edition": "5",
        "version": 7,
        "mail": {"sent": 3},
        "tags": [1, 2],
        "none": None,
    },
)


def matches(text: str, tested: Row = LEDGER) -> bool:
    """Whether an instance matches a filter."""
    return parse_filter(text, tested.metrics).matches(tested, CLOCK)


def error_of(text: str) -> str:
    """The error message for an invalid filter."""
    with pytest.raises(FilterError) as caught:
        parse_filter(text, LEDGER.metrics)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("   ", True),
        ("ledger", True),
        ("LEDG", True),
        ("4222", True),
        ("amd64", True),
        ("postgres", True),
        ("45721", True),
        ("45.7k", True),
        ("active", True),
        ("silent", False),
        ("freebsd", False),
        ("ledger amd64", True),
        ("ledger freebsd", False),
        ('"Ledger Pro"', True),
        ('"Pro Ledger"', False),
        ('"gres 16"', True),
        ("pro1.4.2", False),
        (">5", False),
        ("!", False),
    ],
)
def test_a_word_is_searched_in_every_text_of_the_row(text: str, expected: bool) -> None:
    assert matches(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-freebsd", True),
        ("-ledger", False),
        ("ledger -freebsd", True),
        ('-"Ledger Pro"', False),
        ("-env:staging", True),
        ("-invoices_sent>10", False),
        ("-unheard_of>10", True),
    ],
)
def test_a_minus_negates_a_term(text: str, expected: bool) -> None:
    assert matches(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "id:0f4c",
        "instance:0F4C",
        "app:ledger",
        'application:"ledger p"',
        "os:linux",
        "env:prod",
        "environment:PRODUCTION",
        "mode:docker",
        "env=production",
        "env!=staging",
        "db:postgres",
        'db="postgres 16"',
        "beta:yes",
        "beta=yes",
        "mail.sent:3",
        "MAIL.Sent:3",
        "invoices_sent:",
        "env:",
        "version:",
    ],
)
def test_a_field_contains_a_text_or_equals_it(text: str) -> None:
    assert matches(text)


@pytest.mark.parametrize(
    "text", ["id:ffff", "env:staging", "env=prod", "env!=production", "db:mysql", "unheard_of:", "beta=no"]
)
def test_a_field_with_another_text_does_not_match(text: str) -> None:
    assert not matches(text)


@pytest.mark.parametrize(
    ("prefix", "matching", "others"),
    [
        ("1.4", ["1.4", "1.4.2", "1.4-rc", "v1.4", "1.4rc1"], ["1.40", "1.40.1", "11.4", "2.1.4", ""]),
        ("1", ["1", "1.4", "v1.0"], ["10", "2.1"]),
        ("1.", ["1.4", "1.40"], ["10.4", "1"]),
        ("1.5.0-RC", ["1.5.0-rc.1", "1.5.0-rc"], ["1.5.0"]),
        ("v1.4", ["v1.4.2"], ["v1.40"]),
        ("", ["1.4", "nightly", ""], []),
        ("1.*", [], ["1.4"]),
    ],
)
def test_a_version_prefix_matches_whole_parts(prefix: str, matching: list[str], others: list[str]) -> None:
    query = parse_filter(f"version:{prefix}")
    found = [version for version in matching + others if query.matches(row(app_version=version), CLOCK)]
    assert found == matching


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version>1.9", ["1.10-rc.1", "1.10", "1.10+b7", "2.0-rc.1"]),
        ("version>=1.10", ["1.10", "1.10+b7", "2.0-rc.1"]),
        ("version<1.10", ["main", "1.4", "1.10-rc.1"]),
        ("version=1.10", ["1.10", "1.10+b7"]),
        ("version!=1.10", ["main", "1.4", "1.10-rc.1", "2.0-rc.1"]),
        ("version<=v1.4", ["main", "1.4"]),
    ],
)
def test_versions_are_compared_as_versions(text: str, expected: list[str]) -> None:
    versions = ["main", "1.4", "1.10-rc.1", "1.10", "1.10+b7", "2.0-rc.1", ""]
    ranks = {version: version_rank(version) for version in ("1.9", "1.10", "v1.4")}
    rows = [row(app_version=version) for version in versions]
    assert [
        tested.instance.app_version for tested in rows if parse_filter(text, (), ranks).matches(tested, CLOCK)
    ] == expected


def test_a_version_is_compared_only_once_its_rank_is_known() -> None:
    with pytest.raises(MissingRankError) as caught:
        parse_filter("version>=1.4 version<2", (), {"1.4": "x"})
    assert caught.value.version == "2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("invoices_sent>10", True),
        ("invoices_sent>45.7k", True),
        ("invoices_sent>=45721", True),
        ("invoices_sent>45721", False),
        ("invoices_sent<1M", True),
        ("invoices_sent<=0.000045721B", True),
        ("invoices_sent=45721", True),
        ("invoices_sent!=45721", False),
        ("invoices_sent=4.5721e4", True),
        ("ratio=0.5", True),
        ("ratio>-1", True),
        ("mail.sent>=3", True),
        ("db>5", False),
        ("beta>0", False),
        ("tags>0", False),
        ("none>0", False),
        ("none!=1", False),
        ("unheard_of!=1", False),
        ("edition=5", True),
        ("edition!=5", False),
        ("edition>1", False),
    ],
)
def test_a_metric_is_compared_as_a_number(text: str, expected: bool) -> None:
    assert matches(text) is expected


@pytest.mark.parametrize(
    ("less", "number"),
    [
        ("9223372036854775808", "9223372036854775809"),
        ("10000000000000000000000000000000000000000", "10000000000000000000000000000000000000001"),
        ("0.10000000000000000000000000000000000000", "0.10000000000000000000000000000000000001"),
    ],
)
def test_a_comparison_uses_every_digit(less: str, number: str) -> None:
    tested = row(metrics={"k": Decimal(number) if "." in number else int(number)})
    assert matches(f"k={number}", tested)
    assert matches(f"k>{less}", tested)
    assert not matches(f"k={less}", tested)
    assert not matches(f"k>{number}", tested)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seen<1d", True),
        ("seen<2h", False),
        ("seen<=2h", True),
        ("seen>60m", True),
        ("seen>7201s", False),
        ("seen>30d", False),
    ],
)
def test_times_are_compared_as_ages(text: str, expected: bool) -> None:
    assert matches(text) is expected


def test_an_instance_never_seen_has_no_age_to_compare() -> None:
    unseen = row(seen=None)
    assert not matches("seen<1d", unseen)
    assert not matches("seen>1d", unseen)
    assert matches("-seen>1d", unseen)
    assert matches("first>1d", row(first_seen_at=row(seen=2 * DAY).instance.last_seen_at))


STATES: dict[str, Row] = {
    "active": row(),
    "uncounted": row(counted=False),
    "silent": row(seen=31 * DAY),
    "pending": row(status="pending"),
    "revoked": row(status="revoked"),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status:active", ["active", "uncounted"]),
        ("state:active", ["active", "uncounted"]),
        ("status:counted", ["active"]),
        ("status:uncounted", ["uncounted"]),
        ("status:silent", ["silent"]),
        ("status:pending", ["pending"]),
        ("status=REVOKED", ["revoked"]),
        ("status!=active", ["silent", "pending", "revoked"]),
        ("-status:revoked", ["active", "uncounted", "silent", "pending"]),
        ("status:rev", ["revoked"]),
        ("status:", list(STATES)),
        ("silent", ["silent"]),
        ("counted", ["uncounted"]),
    ],
)
def test_a_status_is_a_label_of_the_screen(text: str, expected: list[str]) -> None:
    assert [word for word, tested in STATES.items() if matches(text, tested)] == expected


def test_a_quoted_name_is_always_a_metric() -> None:
    assert matches('"version">3')
    assert not matches('"version">7')
    assert matches('"mail.sent"=3')
    assert not matches('"seen">0')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"open', 'a quote is not closed: add "'),
        ('db:"open', 'a quote is not closed: add "'),
        ("-", "expected a term after “-”"),
        ("ledger - amd64", "expected a term after “-”"),
        ("version>", "expected a value after version>"),
        ("invoices_sent!=", "expected a value after invoices_sent!="),
        ("invoices_sent>many", "invoices_sent> is compared with a number, not “many”"),
        ("invoices_sent>1.2.3", "invoices_sent> is compared with a number, not “1.2.3”"),
        ("status:asleep", "status: is one of active counted pending revoked silent uncounted"),
        ("state>active", "state: is one of active counted pending revoked silent uncounted"),
        ("seen<soon", "seen is compared with a time: seen<1h, seen>30d"),
        ("seen:1h", "seen is compared with a time: seen<1h, seen>30d"),
        ("env>production", "env is a text: env:production or env=production"),
        ("x" * (MAX_FILTER_CHARS + 1), "a filter has at most 1,000 characters"),
    ],
    ids=lambda text: text[:30],
)
def test_an_invalid_filter_is_explained_in_a_sentence(text: str, message: str) -> None:
    assert error_of(text) == message


def test_an_unknown_metric_causes_one_warning_and_no_match() -> None:
    query = parse_filter("pizzas>10 sandwiches>5 invoices_sent>1", LEDGER.metrics)
    assert query.warning(LEDGER.metrics) == "no instance has sent “pizzas”"
    assert query.warning([*LEDGER.metrics, "Pizzas"]) == "no instance has sent “sandwiches”"
    assert not query.matches(LEDGER, CLOCK)
    assert parse_filter("invoices_sent>1 env:prod", LEDGER.metrics).warning(LEDGER.metrics) == ""


@pytest.mark.parametrize(
    ("text", "is_time_dependent"),
    [
        ("seen<1h", True),
        ("-first>1d", True),
        ("Status:silent", True),
        ("ledger", False),
        ("sil", True),
        ('"seen">1', False),
        ("env:x", False),
    ],
)
def test_a_filter_knows_whether_it_depends_on_the_time(text: str, is_time_dependent: bool) -> None:
    assert parse_filter(text).is_time_dependent is is_time_dependent


def test_an_empty_filter_is_false_and_another_is_true() -> None:
    assert not parse_filter("  ")
    assert parse_filter("ledger")


TOKENS = [
    "version",
    "seen",
    "status",
    "env",
    "k",
    '"',
    "-",
    ":",
    ">",
    ">=",
    "<",
    "=",
    "!=",
    " ",
    "1",
    "1.4",
    "10k",
    "1h",
    "e9",
    ".",
    "٣",
    "²",
    "[/x]",
]
filter_texts = st.text(max_size=60) | st.lists(st.sampled_from(TOKENS), max_size=12).map("".join)


def parse_error(text: str) -> str:
    """The error message of a text; "" for a filter, which is then matched against every instance."""
    try:
        query = parse_filter(text, LEDGER.metrics)
    except FilterError as error:
        return str(error) or "nothing at all"
    assert {query.matches(tested, CLOCK) for tested in (LEDGER, *STATES.values())} <= {True, False}
    return ""


@given(filter_texts)
def test_any_text_is_a_filter_or_has_an_error(text: str) -> None:
    assert parse_error(text) != "nothing at all"


@pytest.mark.parametrize("start", ["seen<", "first>", "version>=", "version:", "k>", "k=1e", "status:", "", "-"])
def test_a_number_of_any_length_is_accepted_or_refused(start: str) -> None:
    assert "at most 1,000 characters" in error_of(start + "9" * 5000)
    for end in ("9", "h"):
        long_text = (start + "9" * MAX_FILTER_CHARS)[: MAX_FILTER_CHARS - 1] + end
        assert len(parse_error(long_text)) < MAX_FILTER_CHARS + 100


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_negated_term_matches_the_complement(word: str, value: str) -> None:
    text = word.replace('"', "") + " " + value.replace('"', "")
    assert matches(f'-"{text}"') is not matches(f'"{text}"')
