"""The requests of docs/api.md, sent to a server with the described fleet, get the documented responses."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess

GUIDE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^```sh\n((?:(?!^```).)*?)^```\n+(?:[^\n]*\n+)?^```(json|csv)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
VARIABLE_FIELDS = {"instance_id", "id", "token", "database_bytes"}
METRICS = {"invoices_sent": 1284, "users_active": 37}
HINTS = {"users_active": {"label": "Users", "description": "Signed in within 30 days"}}
TIMEOUT_S = 60


def examples() -> list[tuple[str, str, str]]:
    """Each request with a documented response, the language of that response, and the response."""
    return [(script, language, response) for script, language, response in EXAMPLE.findall(GUIDE)]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with three installs of Ledger, one of them with an outdated version."""
    with module_server(postgres, tmp_path_factory.mktemp("api"), SHM_MAX_DISK="50g") as (server, _):
        for version in ("1.4.1", "1.4.2"):
            Install(server.url, app_version=version).enroll(METRICS)
        install = Install(server.url)
        install.enroll(METRICS)
        body = install.registration(timestamp=datetime.now(UTC).isoformat(), hints=HINTS)
        install.post("/v1/register", body, install.signed(body)).raise_for_status()
        yield server


def run_script(script: str, server: ServerProcess) -> str:
    """The output of a request, with the variables that the page defines."""
    script = re.sub(r"^(SERVER|TOKEN)=.*\n", "", script, flags=re.MULTILINE).replace("curl ", "curl -sSf ")
    return subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, "SERVER": server.url, "TOKEN": server.admin_token},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout


def normalize(value: Any, name: str = "") -> Any:
    """A response without times and IDs. Of a chart's list, the last three values, which the page shows."""
    if name in VARIABLE_FIELDS:
        return name
    if isinstance(value, dict):
        return {key: normalize(member, key) for key, member in value.items()}
    if isinstance(value, list):
        is_chart = value and not isinstance(value[0], dict)
        return [normalize(member) for member in (value[-3:] if is_chart else value)]
    return "time" if isinstance(value, str) and TIME.fullmatch(value) else value


def without_omitted(response: Any) -> Any:
    """A response without the KPIs that the page omits, and without adoption, which is computed in the background."""
    if isinstance(response, dict) and "kpis" in response:
        return response | {"kpis": response["kpis"][:1]}
    if isinstance(response, dict) and "taken_up" in response:
        return response | {"taken_up": []}
    return response


@pytest.mark.parametrize("number", range(len(examples())))
def test_a_request_gets_the_documented_response(fleet: ServerProcess, number: int) -> None:
    script, language, documented = examples()[number]
    response = run_script(script, fleet)
    if language == "csv":
        assert response.splitlines()[0] == documented.strip()
    else:
        assert normalize(without_omitted(json.loads(response))) == normalize(without_omitted(json.loads(documented)))


def test_the_pagination_example_prints_every_instance(fleet: ServerProcess) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("limit=1000", "limit=1")],
        env={**os.environ, "SERVER": fleet.url, "TOKEN": fleet.admin_token},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout
    expected = {instance["instance_id"]: instance["app_version"] for instance in fleet.get("instances").json()}
    assert len(expected) == 3
    assert dict(line.split() for line in output.splitlines()) == expected


def test_the_documented_adoption_has_the_fields_of_its_schema(fleet: ServerProcess) -> None:
    (documented,) = [json.loads(response)["taken_up"] for _, _, response in examples() if "taken_up" in response]
    schemas = plain_http.get(f"{fleet.url}/api/openapi.json", timeout=TIMEOUT_S).json()["components"]["schemas"]
    (items,) = [each["properties"]["taken_up"]["items"] for each in schemas.values() if "taken_up" in str(each)]
    schema = schemas[items["$ref"].rpartition("/")[2]]
    assert [set(entry) for entry in documented] == [set(schema["properties"])]


def test_every_response_of_the_page_is_tested() -> None:
    assert len(examples()) == len(re.findall(r"^```(?:json|csv)$", GUIDE, re.MULTILINE)) - 1  # except for the refusal
    assert len(examples()) >= 8
