"""Test modules are independent of each other: shared code is in tests/support, and names of tests are short."""

import re
from pathlib import Path

from tests.support.imports import imported_modules

TESTS = Path(__file__).parent
MAX_NAME = 72  # characters, so that a failed test fits one line of the summary


def test_no_module_imports_tests_or_a_conftest() -> None:
    for file in TESTS.rglob("*.py"):
        modules = imported_modules(file.read_text(encoding="utf-8"))
        names = {name.rsplit(".")[-1] for name in modules if name.startswith("tests.")}
        assert not {name for name in names if name.startswith("test_") or name == "conftest"}, file


def test_names_of_tests_are_short() -> None:
    """A name states the promise; the docstring may continue it."""
    for file in TESTS.rglob("test_*.py"):
        names = re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
        assert not [name for name in names if len(name) > MAX_NAME], file
