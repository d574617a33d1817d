"""Sanitizing: any text becomes one printable line whose width is the same in every terminal."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from shm_client.model import Instance, decode
from shm_client.plain_json import is_plain
from shm_tui.command import make_client
from shm_tui.text.cells import cut, fit
from shm_tui.text.reversible_sanitizer import ReversibleSanitizer
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

ACUTE, ZWJ, ZWNJ, VS16 = "\u0301", "\u200d", "\u200c", "\ufe0f"
CONTROLS = ("\x1b]52;c;", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\r", "\n", "\x00", "\x7f", "\ud800")
GLYPHS = (ACUTE, ZWJ, ZWNJ, VS16, "\u20e3", "\U0001f3fd", "\U000e0041", "\u1161", "\u3164", "\u3000", "日", "👍", "🇩")
SPECIAL_TEXTS = st.sampled_from((*CONTROLS, *GLYPHS, "\ue000", "[/x]"))
hostile = st.lists(st.text() | SPECIAL_TEXTS, max_size=30).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_control_and_invisible_characters_are_replaced(text: str, expected: str) -> None:
    assert sanitize(text) == expected


@pytest.mark.parametrize(
    "text", ["[/x]", "[bold red]x[/]", "[@click=app.quit]x[/]", "\\[x]", "{x}", "%s", "&lt;", "$x"]
)
def test_markup_is_unchanged_text(text: str) -> None:
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
def test_scripts_and_emoji_are_unchanged(text: str) -> None:
    assert sanitize(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "expected", "cells"),
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
def test_sequences_that_terminals_draw_differently_are_simplified(text: str, expected: str, cells: int) -> None:
    assert sanitize(text) == expected
    assert cell_len(sanitize(text)) == cells


@pytest.mark.parametrize(
    "invisible", [ZWJ, ZWNJ, VS16, "\u200b", "\U0001f3fd", "\x1b", "\u202e", "\u2060", "\U000e0041"], ids=ascii
)
@pytest.mark.parametrize("position", [0, 3, 6])
def test_invisible_characters_in_a_name_are_shown(invisible: str, position: int) -> None:
    """A name with an invisible character differs from the name without it."""
    name_with_invisible = "Ledger"[:position] + invisible + "Ledger"[position:]
    assert sanitize(name_with_invisible) != sanitize("Ledger")
    assert REPLACEMENT in sanitize(name_with_invisible)


def test_the_number_of_combining_marks_is_limited() -> None:
    assert sanitize("a" + ACUTE * 500) == sanitize("a" + ACUTE * (MAX_COMBINING + 1)) + REPLACEMENT


def test_a_joiner_does_not_reset_the_limit_of_combining_marks() -> None:
    assert sanitize("é" + f"{ACUTE}{ACUTE}{ZWJ}" * 100).count(ACUTE) == MAX_COMBINING


@pytest.mark.parametrize("text", [ACUTE + "a", f" {ACUTE}a", "\u1161a", "\u20e3a"], ids=ascii)
def test_no_mark_is_drawn_on_the_cell_before_the_text(text: str) -> None:
    assert sanitize(text) == f"{REPLACEMENT}a"


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert sanitize("x" * MAX_CHARS) == "x" * MAX_CHARS
    assert sanitize("x" * 10_000) == "x" * (MAX_CHARS - 1) + ELLIPSIS
    assert sanitize("ü" * 10_000) == "ü" * (MAX_CHARS - 1) + ELLIPSIS
    assert sanitize("日本語", 2) == "日" + ELLIPSIS


def test_a_text_of_removed_characters_is_cut_with_an_ellipsis() -> None:
    assert sanitize("\x1b" * 10_000 + "x") == REPLACEMENT + ELLIPSIS


@given(hostile, st.integers(1, 40) | st.just(MAX_CHARS))
def test_the_result_is_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    result = sanitize(text, limit)
    assert len(result) <= limit
    assert result.isprintable()
    assert not {unicodedata.category(character) for character in result} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(hostile)
def test_cached_and_uncached_texts_are_sanitized_alike(text: str) -> None:
    """Only short texts are cached."""
    assert sanitize(f"{text}|{'x' * MAX_CACHED_CHARS}").startswith(sanitize(f"{text}|"))


@given(hostile)
def test_every_kept_character_has_a_cell_or_a_base(text: str) -> None:
    """A character without a cell of its own follows one that has a cell."""
    marks = 0
    for position, character in enumerate(sanitize(text)):
        marks = 0 if cell_len(character) else marks + 1
        assert marks <= (MAX_COMBINING if position else 0)


@given(hostile, st.integers(0, 40), st.booleans())
def test_a_cell_has_exactly_the_requested_width(text: str, width: int, align_right: bool) -> None:
    assert cell_len(fit(sanitize(text), width, align_right)) == width
    assert cell_len(cut(sanitize(text), width)) <= width


def test_a_wide_character_is_not_cut_in_half() -> None:
    assert fit("日本語", 4) == "日… "
    assert fit("日本語", 4, align_right=True) == " 日…"
    assert fit("日本", 4) == "日本"


def test_json_is_sanitized_at_every_level_including_keys() -> None:
    value = {"k\x1b": ["\u202ea", {"b\x07": "c\x00"}], "n": 1, "t": True, "z": None}
    assert sanitize_json(value) == {
        f"k{REPLACEMENT}": [f"{REPLACEMENT}a", {f"b{REPLACEMENT}": f"c{REPLACEMENT}"}],
        "n": 1,
        "t": True,
        "z": None,
    }


def test_keys_with_the_same_sanitized_form_stay_distinct() -> None:
    value: dict[str, object] = {"a\x1b": 1, "a\x07": 2, "a\x07\x07": 3, "👍": 4, "👍🏽": 5}
    sanitized = sanitize_json(value)
    assert isinstance(sanitized, dict)
    assert list(sanitized) == [
        f"a{REPLACEMENT}",
        f"a{REPLACEMENT}{REPLACEMENT}2",
        f"a{REPLACEMENT}{REPLACEMENT}3",
        "👍",
        f"👍{REPLACEMENT}2",
    ]
    assert list(sanitized.values()) == [1, 2, 3, 4, 5]


@given(st.dictionaries(hostile, st.integers()))
def test_no_key_is_lost(value: dict[str, int]) -> None:
    sanitized = sanitize_json(value)
    assert isinstance(sanitized, dict)
    assert list(sanitized.values()) == list(value.values())


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}], ids=["lists", "objects"])
def test_too_deep_values_are_replaced_by_an_ellipsis(wrap: Any) -> None:
    value: Any = 1
    for _ in range(500):
        value = wrap(value)
    sanitized, depth = sanitize_json(value), 0
    while isinstance(sanitized, dict | list):
        sanitized = sanitized[0] if isinstance(sanitized, list) else sanitized["k"]
        depth += 1
    assert (sanitized, depth) == (ELLIPSIS, MAX_DEPTH)


def test_the_consoles_client_sanitizes_values_and_keys() -> None:
    body = json.dumps({"instance_id": "a", "status": "active", "app_name": "L\x1b[2J", "metrics": {"k\u202e": "v\x07"}})
    instance: Instance = decode(body, Instance, make_client("http://127.0.0.1:1", "token").sanitize)
    assert (instance.app_name, instance.metrics) == (f"L{REPLACEMENT}[2J", {f"k{REPLACEMENT}": f"v{REPLACEMENT}"})


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.characters(max_codepoint=127)) | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | hostile, inner, max_size=3),
)


@given(JSON)
def test_sanitizing_changes_no_value_of_a_plain_text(value: object) -> None:
    if is_plain(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")):
        assert sanitize_json(value) == value


@pytest.mark.parametrize("length", [MAX_CHARS, MAX_CHARS + 1])
@pytest.mark.parametrize("depth", [1, MAX_DEPTH, MAX_DEPTH + 1])
def test_long_and_deep_values_are_not_plain(length: int, depth: int) -> None:
    value: object = "x" * length
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    assert is_plain(json.dumps(value).encode()) == (sanitize_json(value) == value)


@pytest.mark.parametrize("text", ["L\x1b", "a\x7f", "L\u202e", '"', "}", "日", "x]"])
def test_texts_that_may_have_to_be_sanitized_are_not_plain(text: str) -> None:
    assert not is_plain(json.dumps([text], ensure_ascii=False).encode())
    assert is_plain(b'{"type": "kpis", "kpis": [{"key": "mail.sent", "value": -0.5e3}], "flags": []}')


def test_a_plain_text_that_another_text_looks_like_stays_known() -> None:
    """Then requests name the plain one, which every later response may have."""
    sanitizer = ReversibleSanitizer()
    sanitizer(["prod\u202e", "\u00e9 1", "tail "])
    assert sanitizer.keeps_plain_text
    sanitizer(["two\tmails"])
    assert (sanitizer.restore("two mails"), sanitizer.keeps_plain_text) == ("two\tmails", False)
    sanitizer(["two mails"])
    assert sanitizer.restore("two mails") == "two mails"
