"""Schemathesis asks a real server what its document allows, and what it does not, and finds nothing."""

import json
from collections.abc import Iterator
from datetime import timedelta

import hypothesis
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from shm.handlers.intake import POSTS
from shm.openapi import document
from shm.server import ROUTES
from tests.conftest import fresh_database
from tests.installs import Install
from tests.server_process import ServerProcess

EXAMPLES = 30  # of each operation, beside those of its edges
LIMIT_S = 10

# What a schema cannot say: which 64 digits are a point of the curve, and what a mark is, that is taken as it was told.
ACCEPTED_BY_MORE_THAN_SHAPE = ["/v1/register", "/api/v1/admin/instances"]

CONFIG = SchemathesisConfig.from_dict(
    {
        "operations": [
            {"include-path": path, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for path in ACCEPTED_BY_MORE_THAN_SHAPE
        ]
    }
)
api = schemathesis.openapi.from_dict(json.loads(document(ROUTES, POSTS)), config=CONFIG)


@pytest.fixture(scope="module")
def seeded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with instances of two applications, of each status."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("seeded") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        for number in range(4):
            Install(server.url, app_name="Ledger").arrived({"invoices": number, "beta": True, "mail": {"sent": 1.5}})
            Install(server.url, app_name="Kiosk").arrived({"locale": "fr"}, ago=timedelta(days=1))
        Install(server.url).register()
        yield server
        server.terminate()


@api.exclude(path="/api/v1/admin/feed").parametrize()
@hypothesis.settings(max_examples=EXAMPLES)
def test_whatever_is_asked_the_server_answers_as_its_document_says(
    case: schemathesis.Case, seeded: ServerProcess
) -> None:
    case.call_and_validate(base_url=seeded.url, headers=seeded.headers, timeout=LIMIT_S)
