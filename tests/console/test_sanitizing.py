"""The border: whatever a hostile install sends, what comes out is one harmless line as wide as it says."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from shm_client.model import Instance, decode
from shm_tui.command import make_client
from shm_tui.text.cells import cut, fit
from shm_tui.text.sanitizing import (
    ELLIPSIS,
    MAX_CACHED_CHARS,
    MAX_CHARS,
    MAX_COMBINING,
    MAX_DEPTH,
    REPLACEMENT,
    sanitize,
    sanitize_json,
)
from tests.support.console_rows import no_deadline

ACUTE, ZWJ, ZWNJ, VS16 = "\u0301", "\u200d", "\u200c", "\ufe0f"
CONTROLS = ("\x1b]52;c;", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\r", "\n", "\x00", "\x7f", "\ud800")
GLYPHS = (ACUTE, ZWJ, ZWNJ, VS16, "\u20e3", "\U0001f3fd", "\U000e0041", "\u1161", "\u3164", "\u3000", "日", "👍", "🇩")
TRICKS = st.sampled_from((*CONTROLS, *GLYPHS, "\ue000", "[/x]"))
hostile = st.lists(st.text() | TRICKS, max_size=30).map("".join)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("Ledger 1.4", "Ledger 1.4"),
        ("\x1b[2Jgone", f"{REPLACEMENT}[2Jgone"),
        ("\x1b]52;c;cm0gLXJm\x07", f"{REPLACEMENT}]52;c;cm0gLXJm{REPLACEMENT}"),
        ("\x1bP1;2|\x1b\\", f"{REPLACEMENT}P1;2|{REPLACEMENT}\\"),
        ("a\x9b31mb", f"a{REPLACEMENT}31mb"),
        ("a\x00\x01\x02b", f"a{REPLACEMENT}b"),
        ("back\x08space\x7f", f"back{REPLACEMENT}space{REPLACEMENT}"),
        ("evil\u202egnp.exe", f"evil{REPLACEMENT}gnp.exe"),
        ("\u2066isolated\u2069", f"{REPLACEMENT}isolated{REPLACEMENT}"),
        ("zero\u200bwidth\ufeff", f"zero{REPLACEMENT}width{REPLACEMENT}"),
        ("soft\xadhyphen", f"soft{REPLACEMENT}hyphen"),
        ("private\ue000", f"private{REPLACEMENT}"),
        ("half\ud800", f"half{REPLACEMENT}"),
        ("two\nlines\r\nor\u2028more", "two lines  or more"),
        ("tab\tbed", "tab bed"),
        ("\u3164\u3164", ""),
    ],
    ids=ascii,
)
def test_what_a_terminal_would_obey_is_taken_out_and_leaves_a_mark(sent: str, shown: str) -> None:
    assert sanitize(sent) == shown


@pytest.mark.parametrize(
    "text", ["[/x]", "[bold red]x[/]", "[@click=app.quit]x[/]", "\\[x]", "{x}", "%s", "&lt;", "$x"]
)
def test_markup_stays_the_text_that_it_is(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Buchführung",
        "日本語のアプリ",
        "한국어",
        "Бухгалтерия",
        "عربي",
        "हिन्दी",
        "ไทย",
        "ကြို့",
        "Tiếng Việt",
        "👍 ok",
        "⌘ €",
    ],
)
def test_scripts_and_emoji_stay_as_they_are(text: str) -> None:
    assert sanitize(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("sent", "shown", "cells"),
    [
        ("日本", "日本", 4),
        ("각", "각", 2),
        (f"e{ACUTE}", "é", 1),
        ("कि", "कि", 1),
        (f"❤{VS16}", "❤", 1),
        (f"1{VS16}\u20e3", "1\u20e3", 1),
        ("👍🏽", "👍", 2),
        (f"👨{ZWJ}👩{ZWJ}👧", "👨👩👧", 6),
        (f"می{ZWNJ}خواهم", "میخواهم", 7),
    ],
    ids=ascii,
)
def test_what_terminals_draw_differently_becomes_what_all_draw_alike(sent: str, shown: str, cells: int) -> None:
    assert sanitize(sent) == shown
    assert cell_len(sanitize(sent)) == cells


@pytest.mark.parametrize(
    "unseen", [ZWJ, ZWNJ, VS16, "\u200b", "\U0001f3fd", "\x1b", "\u202e", "\u2060", "\U000e0041"], ids=ascii
)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_invisible_characters_in_a_name_are_shown(unseen: str, place: int) -> None:
    """A name with something unseen in it does not pass for the name without."""
    forged = "Ledger"[:place] + unseen + "Ledger"[place:]
    assert sanitize(forged) != sanitize("Ledger")
    assert REPLACEMENT in sanitize(forged)


def test_marks_do_not_pile_up_over_the_lines_above() -> None:
    assert sanitize("a" + ACUTE * 500) == sanitize("a" + ACUTE * (MAX_COMBINING + 1)) + REPLACEMENT


def test_a_joiner_between_marks_does_not_begin_a_new_pile() -> None:
    assert sanitize("é" + f"{ACUTE}{ACUTE}{ZWJ}" * 100).count(ACUTE) == MAX_COMBINING


@pytest.mark.parametrize("text", [ACUTE + "a", f" {ACUTE}a", "\u1161a", "\u20e3a"], ids=ascii)
def test_nothing_lands_on_the_cell_before_the_text(text: str) -> None:
    assert sanitize(text) == f"{REPLACEMENT}a"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert sanitize("x" * MAX_CHARS) == "x" * MAX_CHARS
    assert sanitize("x" * 10_000) == "x" * (MAX_CHARS - 1) + ELLIPSIS
    assert sanitize("ü" * 10_000) == "ü" * (MAX_CHARS - 1) + ELLIPSIS
    assert sanitize("日本語", 2) == "日" + ELLIPSIS


def test_a_text_cut_to_nothing_says_that_there_was_more() -> None:
    """A text of which nothing is left by the limit says that there was more."""
    assert sanitize("\x1b" * 10_000 + "x") == REPLACEMENT + ELLIPSIS


@no_deadline
@given(hostile, st.integers(1, 40) | st.just(MAX_CHARS))
def test_whatever_comes_one_printable_line_within_the_limit_comes_out(text: str, limit: int) -> None:
    shown = sanitize(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@no_deadline
@given(hostile)
def test_a_short_text_and_the_same_in_a_long_one_are_cleaned_alike(text: str) -> None:
    """Short ones are remembered, long ones are not."""
    assert sanitize(f"{text}|{'x' * MAX_CACHED_CHARS}").startswith(sanitize(f"{text}|"))


@no_deadline
@given(hostile)
def test_every_kept_character_has_a_cell_or_a_base(text: str) -> None:
    """Every character that is kept has cells of its own or stands on one that has."""
    piled = 0
    for place, character in enumerate(sanitize(text)):
        piled = 0 if cell_len(character) else piled + 1
        assert piled <= (MAX_COMBINING if place else 0)


@no_deadline
@given(hostile, st.integers(0, 40), st.booleans())
def test_a_cell_is_exactly_as_wide_as_it_was_asked_to_be(text: str, width: int, right: bool) -> None:
    assert cell_len(fit(sanitize(text), width, right)) == width
    assert cell_len(cut(sanitize(text), width)) <= width


def test_a_wide_character_is_not_cut_in_half() -> None:
    assert fit("日本語", 4) == "日… "
    assert fit("日本語", 4, align_right=True) == " 日…"
    assert fit("日本", 4) == "日本"


def test_json_is_cleaned_through_and_through_keys_too() -> None:
    sent = {"k\x1b": ["\u202ea", {"b\x07": "c\x00"}], "n": 1, "t": True, "z": None}
    assert sanitize_json(sent) == {
        f"k{REPLACEMENT}": [f"{REPLACEMENT}a", {f"b{REPLACEMENT}": f"c{REPLACEMENT}"}],
        "n": 1,
        "t": True,
        "z": None,
    }


def test_keys_that_become_the_same_by_cleaning_stay_apart() -> None:
    sent: dict[str, object] = {"a\x1b": 1, "a\x07": 2, "a\x07\x07": 3, "👍": 4, "👍🏽": 5}
    cleaned = sanitize_json(sent)
    assert isinstance(cleaned, dict)
    assert list(cleaned) == [
        f"a{REPLACEMENT}",
        f"a{REPLACEMENT}{REPLACEMENT}2",
        f"a{REPLACEMENT}{REPLACEMENT}3",
        "👍",
        f"👍{REPLACEMENT}2",
    ]
    assert list(cleaned.values()) == [1, 2, 3, 4, 5]


@no_deadline
@given(st.dictionaries(hostile, st.integers()))
def test_no_key_is_lost(sent: dict[str, int]) -> None:
    cleaned = sanitize_json(sent)
    assert isinstance(cleaned, dict)
    assert list(cleaned.values()) == list(sent.values())


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}], ids=["lists", "objects"])
def test_what_is_too_deep_ends_in_an_ellipsis(wrap: Any) -> None:
    value: Any = 1
    for _ in range(500):
        value = wrap(value)
    cleaned, depth = sanitize_json(value), 0
    while isinstance(cleaned, dict | list):
        cleaned = cleaned[0] if isinstance(cleaned, list) else cleaned["k"]
        depth += 1
    assert (cleaned, depth) == (ELLIPSIS, MAX_DEPTH)


def test_the_consoles_client_sanitizes_values_and_keys() -> None:
    """The consoles client lets nothing in that was not cleaned keys neither."""
    body = json.dumps({"instance_id": "a", "status": "active", "app_name": "L\x1b[2J", "metrics": {"k\u202e": "v\x07"}})
    one: Instance = decode(body, Instance, make_client("http://127.0.0.1:1", "token").sanitize)
    assert (one.app_name, one.metrics) == (f"L{REPLACEMENT}[2J", {f"k{REPLACEMENT}": f"v{REPLACEMENT}"})
