"""Schemathesis requests what the document of a real server allows and forbids: the same examples each time."""

from typing import Any

import hypothesis
import schemathesis

from tests.support.schemathesis_api import check_case, schema
from tests.support.targets import Seeded

pytest_plugins = ["schemathesis.pytest.plugin"]  # takes seconds to load: pyproject.toml keeps it from all other files


@schema.parametrize()
@hypothesis.settings(max_examples=25, derandomize=True, deadline=None)
def test_whatever_is_asked_the_server_answers_as_its_document_says(
    case: schemathesis.Case[Any], seeded: Seeded
) -> None:
    check_case(case, seeded)
