"""What the developer says about metrics: sent with the registration, once, and never in the way of a report."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from shm.ingest import metric_hints
from shm_sdk import Client, ConfigurationError
from shm_sdk.hints import MAX_BYTES, MAX_HINTS, WORDS, Hints
from tests.support.scripted_server import ScriptedServer
from tests.support.server_process import ServerProcess

MakeClient = Callable[..., Client]


def sent_hints(scripted_server: ScriptedServer) -> list[Any]:
    return [body.get("hints") for body in scripted_server.bodies("/v1/register")]


def test_the_sdk_and_the_server_know_the_same_words() -> None:
    types = get_type_hints(Client.describe)
    words = {field: get_args(get_args(types[field])[0]) for field in WORDS}
    assert words == WORDS == metric_hints.WORDS


def test_hints_are_sent_with_the_registration(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    telemetry.describe("mail.sent", label="Mails", unit="pcs", kind="business", aggregate="sum")
    telemetry.describe("mail.sent", unit="mails", description="Mails that were sent")
    assert b'"hints":{"mail.sent"' in telemetry.preview().register
    assert telemetry.report_now().sent
    fields = {"label": "Mails", "unit": "mails", "kind": "business", "aggregate": "sum"}
    assert sent_hints(scripted_server) == [{"mail.sent": {**fields, "description": "Mails that were sent"}}]


def test_a_changed_hint_registers_again_once(client: MakeClient, scripted_server: ScriptedServer) -> None:
    telemetry = client()
    assert telemetry.report_now().sent
    telemetry.describe("jobs", label="Jobs")
    for _ in range(3):
        assert telemetry.report_now().sent
    assert sent_hints(scripted_server) == [None, {"jobs": {"label": "Jobs"}}]


def test_a_process_without_hints_does_not_register_again(client: MakeClient, scripted_server: ScriptedServer) -> None:
    """Another process of the install, such as a command, may not import the modules that describe metrics."""
    first, second = client(), client()
    first.describe("jobs", label="Jobs")
    second.describe("mails", label="Mails")
    for telemetry in (first, client(), first, second, first):
        assert telemetry.report_now().sent
    assert sent_hints(scripted_server) == [
        {"jobs": {"label": "Jobs"}},
        {"jobs": {"label": "Jobs"}, "mails": {"label": "Mails"}},
    ]


def test_a_new_version_forgets_the_hints_of_the_old_one(client: MakeClient, scripted_server: ScriptedServer) -> None:
    old, new = client(), client(app_version="2")
    old.describe("jobs", label="Jobs")
    new.describe("mails", label="Mails")
    assert old.report_now().sent
    assert new.report_now().sent
    assert sent_hints(scripted_server)[-1] == {"mails": {"label": "Mails"}}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"label": ""}, "label of jobs must be a printable text of at most 64 characters"),
        ({"label": "a\nb"}, "label of jobs must be a printable text"),
        ({"unit": "x" * 17}, "unit of jobs must be a printable text of at most 16 characters"),
        ({"kind": "other"}, "kind of jobs must be one of business, system"),
        ({"aggregate": ["sum"]}, "aggregate of jobs must be one of sum, avg, min, max, median"),
    ],
)
def test_a_wrong_description_is_one_error(
    client: MakeClient, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture, fields: Any, error: str
) -> None:
    telemetry = client()
    with caplog.at_level(logging.ERROR, "shm_sdk"):
        telemetry.describe("jobs", **fields)
    assert [record.getMessage() for record in caplog.records if error in record.getMessage()] != []
    with pytest.raises(ConfigurationError, match=error):
        client(strict=True).describe("jobs", **fields)
    assert telemetry.report_now().sent
    assert sent_hints(scripted_server) == [None]


def test_hints_fit_into_a_registration() -> None:
    hints = Hints()
    errors = [hints.add(f"key{number}", {"label": "A"}) for number in range(MAX_HINTS + 1)]
    assert errors[:-1] == [""] * MAX_HINTS
    assert errors[-1] == f"more than {MAX_HINTS} metrics are described"
    large = Hints()
    fields = {"label": "é" * 64, "description": "é" * 200}
    assert any(large.add(f"{number}{'x' * 120}", fields) for number in range(MAX_HINTS))
    merged = hints.merged_with(large.document())
    assert set(hints.document()) <= set(merged)
    assert len(json.dumps(merged, ensure_ascii=False).encode()) < 2 * MAX_BYTES


def test_a_suggestion_reaches_the_vendor(shared_server: ServerProcess, tmp_path: Path) -> None:
    telemetry = Client(shared_server.url, "Hint Ledger", "1", data_dir=tmp_path)
    telemetry.describe("invoices_sent", label="Invoices", description="Invoices that were mailed")
    telemetry.provider(lambda: {"invoices_sent": 3})
    assert telemetry.report_now().sent
    telemetry.stop()
    (suggestion,) = shared_server.get("applications/hint-ledger/suggestions").json()
    assert suggestion["override"] == {"label": "Invoices", "description": "Invoices that were mailed"}
