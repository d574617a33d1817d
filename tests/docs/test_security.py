"""SECURITY.md: each line of its lists names at least one test, and every test that it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CLAIMS = [line for line in TEXT.splitlines() if line.startswith("- ")]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 20
    assert not re.search(r"^[ \t]+- |^\* |^\d+\. ", TEXT, re.MULTILINE), "a claim that the pattern does not see"


@cache
def functions_of(file: str) -> set[str]:
    """The names of a module's functions."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_names_the_test_that_holds_it(claim: str) -> None:
    references = REFERENCE.findall(claim)
    assert references, "name the test"
    for file, name in references:
        assert name in functions_of(file), f"{file} has no {name}"
