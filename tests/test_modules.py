"""What tests share is in tests/support; a file of tests can be moved or removed without a look at the others."""

from pathlib import Path

import pytest

from tests.support.imports import imported_modules

TESTS = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_module_imports_tests_or_a_conftest(file: Path) -> None:
    names = {
        name.rsplit(".")[-1] for name in imported_modules(file.read_text(encoding="utf-8")) if name.startswith("tests.")
    }
    assert not {name for name in names if name.startswith("test_") or name == "conftest"}
