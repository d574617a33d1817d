"""docs/glossary.md is in alphabetical order and defines the terms of the API and the console."""

import re
from pathlib import Path

import pytest

from shm_tui.model.state import State

GUIDE = (Path(__file__).parents[2] / "docs/glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^### (.+)$", GUIDE, re.MULTILINE)
ROLES = ("admin", "viewer")
WORDS_OF_THE_API = ("pending", "revoked", "business", "system", "median", "excluded", "releases_behind", "taken_up")


def test_terms_are_in_alphabetical_order() -> None:
    assert sorted(TERMS, key=str.lower) == TERMS


@pytest.mark.parametrize("state", State)
def test_each_state_of_the_console_is_a_term(state: State) -> None:
    assert state.label.capitalize() in TERMS


@pytest.mark.parametrize("word", [*ROLES, *WORDS_OF_THE_API])
def test_each_word_of_the_api_is_explained(word: str) -> None:
    assert f"`{word}`" in GUIDE
