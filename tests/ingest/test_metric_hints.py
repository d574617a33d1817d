"""Hints about metrics: of a proven install, as a suggestion only, and gone with the install."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from nacl.signing import SigningKey

from shm.db.advisory_locks import Lock
from shm.ingest.enrolment import MAX_BATCH_HINTS
from shm.ingest.metric_hints import MAX_HINTS, parse_hints
from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, select_column
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act

SENDERS = 12
HINTS = {"invoices_sent": {"label": "Invoices", "unit": "pcs", "description": "Invoices that were mailed"}}


def parse(document: Any) -> Any:
    parsed = parse_hints(document, 128)
    return None if parsed is None else json.loads(bytes(parsed))


def test_valid_hints_are_kept() -> None:
    hint = {"label": "Größe", "unit": "MB", "kind": "system", "aggregate": "max", "description": "Of the database"}
    assert parse({"db.size": hint, "n": {"unit": "%"}}) == {"db.size": hint, "n": {"unit": "%"}}


INVALID: list[Any] = [
    *({"label": label} for label in ("", " x", "a\nb", "a\0b", "\ud800", "\x1b[31m", "\u202e", "x" * 65, 3, None)),
    *({"unit": unit} for unit in ("x" * 17, "\t", ["MB"])),
    *({"kind": kind} for kind in ("other", True, ["system"], 3)),
    *({"aggregate": aggregate} for aggregate in ("p99", "", 1)),
    {"description": "x" * 201},
    {"hidden": True},
    {},
    [],
    "label",
    None,
]


@pytest.mark.parametrize("hint", INVALID)
def test_an_invalid_hint_costs_itself_only(hint: object) -> None:
    """A newer SDK may know more than this server: its installs must still be able to register."""
    assert parse({"n": hint}) is None
    assert parse({"n": hint, "m": {"label": "M"}}) == {"m": {"label": "M"}}
    if isinstance(hint, dict):
        assert parse({"n": {"description": "A sentence", **hint}}) == (
            None if "description" in hint else {"n": {"description": "A sentence"}}
        )


@pytest.mark.parametrize("key", ["", "x" * 129, "a\0b", "\ud800", " a"])
def test_a_hint_for_an_impossible_key_is_left_out(key: str) -> None:
    assert parse({key: {"label": "A"}}) is None


def test_the_number_of_hints_is_limited() -> None:
    assert len(parse({f"key{number}": {"label": "A"} for number in range(MAX_HINTS + 50)})) == MAX_HINTS


def register(install: Install, hints: object, **changes: Any) -> httpx.Response:
    """A signed registration, as the SDK sends it."""
    body = install.registration(timestamp=datetime.now(UTC).isoformat(), hints=hints, **changes)
    return install.post("/v1/register", body, install.signed(body))


@pytest.fixture
def install(shared_server: ServerProcess, request: pytest.FixtureRequest) -> Install:
    """An install of an application of its own."""
    return Install(shared_server.url, app_name=request.node.name)


def suggestions(server: ServerProcess, install: Install) -> list[dict[str, Any]]:
    slug = install.app_name.replace("_", "-")
    listed: list[dict[str, Any]] = server.get(f"applications/{slug}/suggestions").raise_for_status().json()
    return listed


def test_a_hint_is_suggested_and_changes_nothing(shared_server: ServerProcess, install: Install) -> None:
    assert register(install, HINTS).status_code == 201
    assert install.post("/v1/snapshot", *signed_snapshot(install, {"invoices_sent": 3})).status_code == 202
    slug = install.app_name.replace("_", "-")
    (described,) = shared_server.get(f"metric-keys?app={slug}").json()
    assert (described["label"], described["unit"], described["description"]) == ("Invoices sent", None, None)
    suggested = HINTS["invoices_sent"]
    assert suggestions(shared_server, install) == [
        {"key": "invoices_sent", "suggested": suggested, "override": suggested, "instances": 1, "others": 0}
    ]


def change(server: ServerProcess, slug: str, body: object) -> httpx.Response:
    url = f"{server.url}/api/v1/admin/applications/{slug}"
    return plain_http.put(url, content=json.dumps(body).encode(), headers=server.headers)


def signed_snapshot(install: Install, metrics: object) -> tuple[bytes, dict[str, str]]:
    body = install.snapshot_body(metrics)
    return body, install.signed(body)


def test_an_accepted_suggestion_is_suggested_no_more(shared_server: ServerProcess, install: Install) -> None:
    """And what the vendor has set is never suggested differently."""
    register(install, HINTS)
    slug = install.app_name.replace("_", "-")
    own = {"overrides": {"invoices_sent": {"label": "Bills", "hidden": True}}}
    assert change(shared_server, slug, own).status_code == 200
    (suggestion,) = suggestions(shared_server, install)
    assert suggestion["suggested"] == {"unit": "pcs", "description": "Invoices that were mailed"}
    assert suggestion["override"] == {"label": "Bills", "hidden": True, **suggestion["suggested"]}
    accepted = {"overrides": {suggestion["key"]: suggestion["override"]}}
    assert change(shared_server, slug, accepted).status_code == 200
    assert suggestions(shared_server, install) == []
    (described,) = shared_server.get(f"metric-keys?app={slug}&keys=invoices_sent").json()
    assert (described["label"], described["unit"]) == ("Bills", None)  # it has no numbers yet
    assert described["description"] == "Invoices that were mailed"


def test_the_hint_of_most_installs_is_suggested(shared_server: ServerProcess, install: Install) -> None:
    """One stranger who registers as an install of the application is outvoted, and visible."""
    for _ in range(3):
        register(Install(install.url, app_name=install.app_name), HINTS)
    register(install, {"invoices_sent": {"label": "AAA buy this"}, "other": {"label": "AAA"}})
    first, second = suggestions(shared_server, install)
    assert (first["suggested"]["label"], first["instances"], first["others"]) == ("Invoices", 3, 1)
    assert (second["key"], second["instances"]) == ("other", 1)


def test_a_registration_replaces_the_hints(shared_server: ServerProcess, install: Install) -> None:
    register(install, HINTS)
    register(install, {"n": {"label": "Number"}})
    assert [each["key"] for each in suggestions(shared_server, install)] == ["n"]
    assert register(install, {"n": {"label": "\x00"}}).status_code == 200  # no valid hint: nothing is replaced
    assert [each["key"] for each in suggestions(shared_server, install)] == ["n"]


def test_only_a_proven_install_gives_hints(shared_server: ServerProcess, install: Install) -> None:
    stranger = Install(install.url, app_name=install.app_name, instance_id=install.instance_id)
    register(install, HINTS)
    unsigned = install.registration(timestamp=datetime.now(UTC).isoformat(), hints={"n": {"label": "Unsigned"}})
    assert install.post("/v1/register", unsigned).status_code == 200
    undated = install.registration(hints={"n": {"label": "May be a copy"}})
    assert install.post("/v1/register", undated, install.signed(undated)).status_code == 200
    old = install.registration(
        timestamp=(datetime.now(UTC) - timedelta(hours=1)).isoformat(), hints={"n": {"label": "Old"}}
    )
    assert install.post("/v1/register", old, install.signed(old)).status_code == 400
    wrongly_signed = install.registration(timestamp=datetime.now(UTC).isoformat(), hints={"n": {"label": "Forged"}})
    headers = install.signed(wrongly_signed) | {
        "X-Signature": SigningKey.generate().sign(wrongly_signed).signature.hex()
    }
    assert install.post("/v1/register", wrongly_signed, headers).status_code == 403
    assert register(stranger, {"n": {"label": "Another key"}}).status_code == 409
    assert [each["key"] for each in suggestions(shared_server, install)] == ["invoices_sent"]


def test_an_install_that_waits_for_approval_gives_none(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_ACTIVATION="manual")
    approved, waiting = Install(server.url), Install(server.url)
    for install in (approved, waiting):
        register(install, HINTS)
    url = f"{server.url}/api/v1/admin/instances/{approved.instance_id}/approve"
    assert plain_http.post(url, headers=server.headers).status_code == 200
    register(approved, {"n": {"label": "Number"}})
    register(waiting, {"m": {"label": "Other number"}})
    assert [each["key"] for each in server.get("applications/ledger/suggestions").json()] == ["n"]


def test_hints_are_disclosed_and_erased_with_the_install(shared_server: ServerProcess, install: Install) -> None:
    register(install, HINTS)
    register(Install(install.url, app_name=install.app_name), {"n": {"label": "Number"}})
    assert act(install, "disclose").json()["instance"]["hints"] == HINTS
    assert act(install, "erase").status_code == 200
    assert [each["key"] for each in suggestions(shared_server, install)] == ["n"]


@pytest.mark.parametrize("hints", [[], "label", 3, None])
def test_hints_that_are_no_object_are_refused(install: Install, hints: object) -> None:
    response = register(install, hints)
    assert (response.status_code, response.json()["code"]) == (400, "bad_field")
    assert "$.hints" in response.json()["detail"]


def test_large_hints_are_written_in_several_transactions(server: ServerProcess, database: str) -> None:
    """All other installs wait while a batch holds the writers' lock, so hints do not make it long."""
    installs = [Install(server.url) for _ in range(SENDERS)]
    for each in installs:
        assert each.register().status_code == 201
    large = {f"key{number:03}": {"description": "x" * 200} for number in range(MAX_HINTS)}
    with admin_cursor(database) as cursor, ThreadPoolExecutor(SENDERS) as threads:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])
        registering = [threads.submit(register, each, large) for each in installs]
        sent = SENDERS * len(json.dumps(large))
        wait_for(lambda: sample_value(scrape(server), "shm_request_bytes", worker="0") > sent, "all registrations")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])
        assert {each.result().status_code for each in registering} == {200}
    sizes = select_column(database, "SELECT sum(length(hints::text)) FROM metric_hints GROUP BY xmin")
    assert max(sizes) < MAX_BATCH_HINTS + 2 * len(json.dumps(large))
    assert len(select_column(database, "SELECT instance_id FROM metric_hints")) == SENDERS
