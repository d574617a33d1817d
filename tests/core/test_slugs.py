"""Slugs of application names: which names share one, and that no other names do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shm.core.slugs import MAX_SLUG_LENGTH, fold_name, make_slug

PROTOCOL_GUIDE = Path(__file__).parent.parent.parent / "docs" / "protocol.md"

# Parts of names, and each of them without case, Latin accents and separators.
PARTS = {
    **{letter: letter.lower() for letter in "abcABCxyZ019"},
    "é": "e",
    "É": "e",
    "e\u0301": "e",
    "e": "e",
    "ß": "ss",
    "SS": "ss",
    "ø": "o",
    "o": "o",
    "Ł": "l",
    "l": "l",
    "æ": "ae",
    "AE": "ae",
    "x\u0302": "x",
    "ａ": "a",
    "deadbeef": "deadbeef",
    "app": "app",
    "北": "北",
    "背": "背",
    "京": "京",
    "景": "景",
    "Д": "д",
    "д": "д",
    "Ω": "ω",
    "и\u0306": "й",
    "Й": "й",
    **{symbol: symbol for symbol in "+#@*$%~<=\\{`€★"},
    "™": "™",
    "tm": "tm",
    "🎉": "🎉",
    ":tada:": " tada ",
    "\u200d": "\u200d",
    **dict.fromkeys("-_./,:;'’\"()[]|&!?·  \t\n\xa0", " "),
}
names = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=8)
texts = st.text() | st.text("aB1é ßДи\u0306+-™", max_size=120)


def fold_by_table(parts: list[str]) -> str:
    """The folded name by the table, independently of `fold_name`."""
    return " ".join("".join(PARTS[part] for part in parts).split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ledger", "ledger"),
        ("Café Ledger", "cafe-ledger"),
        ("CAFE/LEDGER", "cafe-ledger"),
        ("  My -- App!! 2.0 ", "my-app-2-0"),
        ("Straße", "strasse"),
        ("Łódź & Ærø", "lodz-aero"),
        ("İstanbul", "istanbul"),
        ("Joe’s App (beta)", "joe-s-app-beta"),
    ],
)
def test_a_slug_is_readable_ascii(name: str, expected: str) -> None:
    assert make_slug(name) == expected


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("Приложение", "prilozhenie"),
        ("北京", "beijing"),
        ("C++ Tool", "c-tool"),
        ("Ledger™", "ledgertm"),
        ("🎉", "tada"),
        ("\u200d", "app"),
        ("!!!", "app"),
        ("Build 20240101", "build-20240101"),
        ("a" * 101, "a" * 91),
    ],
)
def test_a_name_that_a_slug_cannot_represent_gets_a_hash(name: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", make_slug(name))


def test_the_examples_of_the_documentation_are_correct() -> None:
    examples = re.findall(r"`([^`]+)` is\s+`([a-z0-9-]+)`", PROTOCOL_GUIDE.read_text())
    assert len(examples) >= 3
    assert [make_slug(name) for name, _ in examples] == [slug for _, slug in examples]


@pytest.mark.parametrize(
    "others",
    [
        ("北京", "背景", "BeiJing"),
        ("C++ Tool", "C# Tool", "C Tool", "C* Tool"),
        ("Ledger™", "LedgerTM"),
        ("!!!", "???"),
        ("a" * 200 + "1", "a" * 200 + "2"),
    ],
)
def test_unrelated_names_do_not_share_a_slug(others: tuple[str, ...]) -> None:
    assert len({make_slug(name) for name in others}) == len(others)


@given(names, names)
@example(["C", "+", "x"], ["C", "x"])
@example(["北", "京"], ["背", "景"])
@example(["é", "-", "A"], ["e", " ", "a"])
def test_names_share_a_slug_only_if_case_or_accents_differ(some: list[str], others: list[str]) -> None:
    """Two names share a slug if and only if they differ only in case, accents and separators."""
    assume(fold_by_table(some) and fold_by_table(others))
    assert (make_slug("".join(some)) == make_slug("".join(others))) == (fold_by_table(some) == fold_by_table(others))


@given(texts)
@example("C++ Tool")
@example("a" * 101)
def test_a_name_equal_to_the_slug_of_another_gets_a_different_slug(name: str) -> None:
    copy = make_slug(name)
    assert (make_slug(copy) == copy) == (fold_name(copy) == fold_name(name))


@given(texts, texts)
def test_equal_slugs_have_equal_folded_forms(some: str, other: str) -> None:
    if make_slug(some) == make_slug(other) and fold_name(some):
        assert fold_name(some) == fold_name(other)


@given(texts)
def test_a_slug_is_a_valid_url_path_segment(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", make_slug(name))
    assert len(make_slug(name)) <= MAX_SLUG_LENGTH


@given(texts, st.sampled_from([str.upper, str.lower, str.title, str.swapcase]))
@example("ŉ", str.upper)
@example("ᾳ", str.upper)
@example("ß", str.title)
def test_case_does_not_change_a_slug(name: str, changed: Callable[[str], str]) -> None:
    assume(fold_name(name))  # separators have no case
    assert make_slug(changed(name)) == make_slug(name)


@given(st.lists(st.text("abcéД+1", min_size=1), min_size=1, max_size=4), st.data())
def test_separators_do_not_change_a_slug(words: list[str], data: st.DataObject) -> None:
    separators = st.text("-_./,:;'’\"()[]|&!?· \t\u00a0", min_size=1, max_size=3)
    changed = "".join(data.draw(separators) + word for word in words) + data.draw(separators)
    assert make_slug(changed) == make_slug(" ".join(words))
