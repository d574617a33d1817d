"""The documentation names every error code and every path of the server."""

import re
from pathlib import Path
from typing import get_args

from shm.auth.tokens import Role
from shm.core.aggregates import Aggregate
from shm.core.errors import BadTimestamp, Refusal
from shm.core.metric_keys import Format
from shm.server.app import ADMIN, ROUTES
from shm.server.openapi import GROUP
from tests.support.responses import READER_ERROR_CODES

ROOT = Path(__file__).parent.parent.parent
REFUSALS = [refusal.__name__ for refusal in (*Refusal.__subclasses__(), BadTimestamp)]
PATH_ROW = re.compile(r"^\| `([A-Z]+) (\S+)` \| (\w+) \|", re.MULTILINE)
CODE = re.compile(rf'\b(?:{"|".join(REFUSALS)})\(\s*"([a-z_]+)"')


def test_the_protocol_names_every_code_and_no_other() -> None:
    codes = {code for file in (ROOT / "shm").rglob("*.py") for code in CODE.findall(file.read_text())}
    table = (ROOT / "docs" / "protocol.md").read_text().partition("## Refusals")[2].partition("## Test vectors")[0]
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", table)) | {"unstorable", "replayed"}
    readers_only = READER_ERROR_CODES - {"unknown_parameter"}
    assert codes - readers_only == documented - {"server_time"}


def test_the_api_names_every_code_of_the_admin_api() -> None:
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", (ROOT / "docs" / "api.md").read_text()))
    assert documented >= READER_ERROR_CODES


def test_the_api_names_every_path_with_its_role_and_no_other() -> None:
    routes = {
        (method.upper(), GROUP.sub(r"{\1}", pattern).removeprefix(f"{ADMIN}/"), role_name(operation.role))
        for pattern, handler in ROUTES
        for method, operation in handler.operations.items()
        if method != "head"
    }
    assert set(PATH_ROW.findall((ROOT / "docs" / "api.md").read_text())) == routes


def test_the_docs_name_every_aggregate_and_format() -> None:
    (aggregates,) = re.findall(r"aggregate \(((?:`\w+`(?:, )?)+)\)", (ROOT / "docs" / "figures.md").read_text())
    _, _, formats = (ROOT / "docs" / "api.md").read_text().partition("| `format` |")
    assert re.findall(r"\w+", aggregates) == list(get_args(Aggregate))
    *first, last = (f"`{aggregate}`" for aggregate in get_args(Aggregate))
    for guide in ("glossary.md", "sdk.md"):
        assert f"{', '.join(first)} or {last}" in (ROOT / "docs" / guide).read_text(), guide
    assert re.findall(r"^\| `(\w+)`", formats.partition("\n\n")[0], re.MULTILINE) == list(get_args(Format))


def role_name(role: Role) -> str:
    """The role's name in the documentation."""
    return role.name.lower() if role >= Role.VIEWER else "anybody"
