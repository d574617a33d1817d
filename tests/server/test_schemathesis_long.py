"""Schemathesis sends random valid and invalid requests by the OpenAPI document."""

from typing import Any

import hypothesis
import pytest
import schemathesis

from tests.support.schemathesis_api import check_case, load_schema
from tests.support.shared_servers import SeededServer

pytest_plugins = ["schemathesis.pytest.plugin"]  # takes seconds to load: pyproject.toml disables it for all other files


@pytest.mark.long
@load_schema(coverage=True).parametrize()
@hypothesis.settings(max_examples=300)
def test_random_requests_get_documented_responses(case: schemathesis.Case[Any], seeded: SeededServer) -> None:
    check_case(case, seeded)
