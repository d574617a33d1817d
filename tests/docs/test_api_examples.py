"""The requests of docs/api.md, run on a fleet such as the page describes, get the answers that stand below them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import fresh_database
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

GUIDE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"^```sh\n((?:(?!^```).)*?)^```\n+(?:[^\n]*\n+)?^```(json|csv)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
VARIES = {"instance_id", "id", "token"}
METRICS = {"invoices_sent": 1284, "users_active": 37}
LIMIT_S = 30


def examples() -> list[tuple[str, str, str]]:
    """Each request that an answer follows, the answer's language, and the answer."""
    return [(script, language, answer) for script, language, answer in EXAMPLE.findall(GUIDE)]


@pytest.fixture(scope="module")
def fleet(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with three installs of Ledger, one of them behind."""
    with fresh_database(postgres) as database:
        server = ServerProcess(tmp_path_factory.mktemp("api") / "data", {"SHM_DB_DSN": database})
        server.start()
        for version in ("1.4.1", "1.4.2", "1.4.2"):
            Install(server.url, app_version=version).enroll(METRICS)
        yield server
        server.terminate()


def run(script: str, server: ServerProcess) -> str:
    """The output of a request, with the variables that the page sets first."""
    script = re.sub(r"^(SERVER|TOKEN)=.*\n", "", script, flags=re.MULTILINE).replace("curl ", "curl -sSf ")
    return subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, "SERVER": server.url, "TOKEN": server.admin_token},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout


def plain(value: Any, name: str = "") -> Any:
    """Without times and IDs; of a list of a chart only its end, of which the page shows three values."""
    if name in VARIES:
        return name
    if isinstance(value, dict):
        return {key: plain(member, key) for key, member in value.items()}
    if isinstance(value, list):
        is_chart = value and not isinstance(value[0], dict)
        return [plain(member) for member in (value[-3:] if is_chart else value)]
    return "time" if isinstance(value, str) and TIME.fullmatch(value) else value


def shown(answer: Any) -> Any:
    """The page shows one KPI; the adoption of versions is computed in the background, a test of its own holds it."""
    if isinstance(answer, dict) and "kpis" in answer:
        return answer | {"kpis": answer["kpis"][:1]}
    if isinstance(answer, dict) and "taken_up" in answer:
        return answer | {"taken_up": []}
    return answer


@pytest.mark.parametrize("number", range(len(examples())))
def test_a_request_gets_the_answer_below_it(fleet: ServerProcess, number: int) -> None:
    script, language, documented = examples()[number]
    answer = run(script, fleet)
    if language == "csv":
        assert answer.splitlines()[0] == documented.strip()
    else:
        assert plain(shown(json.loads(answer))) == plain(shown(json.loads(documented)))


def test_the_program_that_reads_pages_prints_every_instance(fleet: ServerProcess) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("limit=1000", "limit=1")],
        env={**os.environ, "SERVER": fleet.url, "TOKEN": fleet.admin_token},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout
    listed = {instance["instance_id"]: instance["app_version"] for instance in fleet.get("instances").json()}
    assert len(listed) == 3
    assert dict(line.split() for line in printed.splitlines()) == listed


def test_the_adoption_of_a_version_has_the_members_of_its_schema(fleet: ServerProcess) -> None:
    (documented,) = [json.loads(answer)["taken_up"] for _, _, answer in examples() if "taken_up" in answer]
    schemas = httpx.get(f"{fleet.url}/api/openapi.json", timeout=LIMIT_S).json()["components"]["schemas"]
    (items,) = [each["properties"]["taken_up"]["items"] for each in schemas.values() if "taken_up" in str(each)]
    schema = schemas[items["$ref"].rpartition("/")[2]]
    assert [set(entry) for entry in documented] == [set(schema["properties"])]


def test_all_answers_of_the_page_are_examples() -> None:
    assert len(examples()) == len(re.findall(r"^```(?:json|csv)$", GUIDE, re.MULTILINE)) - 1  # but for the refusal
    assert len(examples()) >= 8
