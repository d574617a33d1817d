"""Schemathesis asks a real server what its document allows and what it does not, by chance, and finds nothing."""

from typing import Any

import hypothesis
import pytest
import schemathesis

from tests.support.schemathesis_api import check_case, schema
from tests.support.targets import Seeded

pytest_plugins = ["schemathesis.pytest.plugin"]  # takes seconds to load: pyproject.toml keeps it from all other files


@pytest.mark.long
@schema.parametrize()
@hypothesis.settings(max_examples=300, deadline=None)
def test_random_requests_get_documented_responses(case: schemathesis.Case[Any], seeded: Seeded) -> None:
    """Whatever is asked by chance the server answers as its document says."""
    check_case(case, seeded)
