"""Schemathesis sends valid and invalid requests by the OpenAPI document, with the same examples each time."""

from typing import Any

import hypothesis
import schemathesis

from tests.support.schemathesis_api import check_case, load_schema
from tests.support.shared_servers import SeededServer

pytest_plugins = ["schemathesis.pytest.plugin"]  # takes seconds to load: pyproject.toml disables it for all other files


@load_schema(coverage=False).parametrize()
@hypothesis.settings(max_examples=3, derandomize=True)
def test_generated_requests_get_documented_responses(case: schemathesis.Case[Any], seeded: SeededServer) -> None:
    check_case(case, seeded)
