"""Test modules are independent of each other: shared code is in tests/support, and names of tests are short."""

import re
from pathlib import Path

import pytest

from tests.support.imports import imported_modules

TESTS = Path(__file__).parent
MAX_NAME = 72  # characters, so that a failed test fits one line of the summary


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_module_imports_tests_or_a_conftest(file: Path) -> None:
    names = {
        name.rsplit(".")[-1] for name in imported_modules(file.read_text(encoding="utf-8")) if name.startswith("tests.")
    }
    assert not {name for name in names if name.startswith("test_") or name == "conftest"}


@pytest.mark.parametrize("file", sorted(TESTS.rglob("test_*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_names_of_tests_are_short(file: Path) -> None:
    """A name states the promise; the docstring may continue it."""
    names = re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    assert not [name for name in names if len(name) > MAX_NAME]
