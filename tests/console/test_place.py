"""A place is one line: parsing, rendering, completion, and going back."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_tui.actions import ACTIONS, commands
from shm_tui.model.completion import candidates, complete
from shm_tui.model.place import (
    MAX_ARGUMENTS,
    PERIODS,
    SHORT_PERIODS,
    VIEW_NAMES,
    Place,
    PlaceError,
    PlaceHistory,
    parse_place,
    render_place,
)
from shm_tui.text.sanitizing import sanitize

TODAY = date(2026, 11, 29)
LEDGER = Place("ledger", range="7d")
NAMES = st.text(min_size=1, max_size=20).map(sanitize).filter(lambda name: name and name == sanitize(name))
IDS = st.uuids().flatmap(lambda id_: st.integers(1, 36).map(lambda length: str(id_)[:length]))
FILTERS = st.sampled_from(["", "env:prod", 'os:linux/amd64 "two words" -ci', "/x"])


@st.composite
def places(draw: st.DrawFn) -> Place:
    """Any place that the console can be at."""
    view = draw(st.sampled_from(VIEW_NAMES))
    count = 1 if view == "instance" else draw(st.integers(0, MAX_ARGUMENTS.get(view, 0)))
    arguments = tuple(draw(IDS if view == "instance" else NAMES) for _ in range(count))
    slug = draw(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True))
    return Place(
        slug,
        view,
        arguments,
        draw(FILTERS),
        draw(st.sampled_from(["", "-sent", "seen"])),
        draw(st.sampled_from(PERIODS)),
    )


@st.composite
def past_places(draw: st.DrawFn) -> Place:
    """Any place as of a day in the past, with a range that has one."""
    day = draw(st.dates(date(2000, 1, 1), date(2026, 11, 28)))
    return replace(draw(places()), at=day, range=draw(st.sampled_from([*set(PERIODS) - {*SHORT_PERIODS}])))


@settings(max_examples=40)
@given(places() | past_places(), places())
def test_a_rendered_place_is_parsed_as_the_same_place(place: Place, current: Place) -> None:
    parsed = parse_place(render_place(place), current)
    assert (parsed.subject, parsed.sort, parsed.range) == (place.subject, place.sort, place.range)
    assert parsed.filter == place.filter


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("versions", Place("ledger", "versions", range="7d")),
        ("3m", Place("ledger", range="3m")),
        ("kiosk", Place("kiosk", range="7d")),
        ("kiosk/metric/mail.sent 1y", Place("kiosk", "metric", ("mail.sent",), range="1y")),
        ("breakdown/os_arch/sent", Place("ledger", "breakdown", ("os_arch", "sent"), range="7d")),
        ("* /status:pending sent>1", Place(None, filter="status:pending sent>1", range="7d")),
        ("versions/instances", Place("versions", range="7d")),
        ("sort=-sent", Place("ledger", sort="-sent", range="7d")),
        ("at 2026-11-01", Place("ledger", range="30d", at=date(2026, 11, 1))),
        ("versions at=-29d 1y", Place("ledger", "versions", range="1y", at=date(2026, 10, 31))),
        ("at", Place("at", range="7d")),
        ("", LEDGER),
    ],
)
def test_parts_that_are_left_out_stay_as_they_are(text: str, place: Place) -> None:
    assert parse_place(text, LEDGER, ["ledger", "kiosk", "versions", "at"], today=TODAY) == place


def test_the_past_stays_until_it_is_left() -> None:
    past = parse_place("at 2026-11-01", LEDGER, today=TODAY)
    for text in ("versions", "kiosk", "3m", "metric/sent", "/env:prod"):
        assert parse_place(text, past, today=TODAY).at == past.at
    assert past.to_view("metric", "sent").at == past.with_app("kiosk").at == past.at
    assert parse_place("at now", past, today=TODAY) == replace(past, at=None)
    assert past.subject != LEDGER.subject  # a step, which can be gone back from


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kisok", "“kisok” is no view and no application"),
        ("ledger/graph", "“graph” is not a view"),
        ("versions/1.4/x", "versions has no argument"),
        ("breakdown/a/b/c", "at most 2 arguments"),
        ("instance", "instance needs an ID"),
        ("instance/zzzz", "“zzzz” is not the beginning of an ID"),
        ("at=yesterday", "is not a day: at=2026-11-01"),
        ("at=2026-02-30", "is not a day"),
        ("at=2026-11-30", "until today, 2026-11-29"),
        ("at=-99999d", "from 2000-01-01"),
        ("24h at=2026-11-01", "24h has no past"),
    ],
)
def test_a_wrong_place_is_refused_with_what_is_expected(text: str, reason: str) -> None:
    with pytest.raises(PlaceError, match=reason):
        parse_place(text, LEDGER, ["ledger"], today=TODAY)


def test_going_back_returns_the_places_in_reverse() -> None:
    history = PlaceHistory()
    steps = [LEDGER, Place("kiosk"), Place("kiosk", "versions")]
    for place in steps:
        history.leave(place)
    assert [history.back() for _ in range(4)] == [*reversed(steps), None]


def test_the_last_word_is_completed() -> None:
    proposals = candidates(commands(is_admin=False), ["ledger", "kiosk"], ["mail.sent"])
    assert [complete(text, proposals) for text in ("ver", "kio", "metric/m", "ledger/li", "pau", "versions 2")] == [
        *("versions", "kiosk", "metric/mail.sent", "ledger/lifecycle", "pause", "versions 24h")
    ]
    assert [complete(text, proposals) for text in ("", "xyz", "ledger /ver")] == [None] * 3


def test_every_command_is_an_action_and_a_viewer_has_no_decision() -> None:
    actions = {action.name for action in ACTIONS} | {"quit"}
    assert set(commands(is_admin=True).values()) <= actions
    assert commands(is_admin=True)["revoke"] == "decide('revoke')"
    assert not {"approve", "revoke", "erase"} & commands(is_admin=False).keys()
