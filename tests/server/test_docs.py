"""The protocol's documentation names every code that the server can answer."""

import re
from pathlib import Path

import shm.handlers.problems  # noqa: F401 - has a refusal of its own
from shm.errors import Refusal

ROOT = Path(__file__).parent.parent.parent
REFUSALS = [refusal.__name__ for refusal in Refusal.__subclasses__()]
CODE = re.compile(rf'\b(?:{"|".join(REFUSALS)})\(\s*"([a-z_]+)"')
OF_THE_READERS = {
    "bad_after",
    "bad_parameter",
    "unknown_parameter",
    "missing_token",
    "bad_token",
    "role_too_small",
    "no_such_application",
    "no_such_instance",
    "no_such_token",
    "own_token",
    "too_many_tokens",
    "revoked_for_good",
    "upgrade_wanted",
    "websocket_version",
    "foreign_origin",
    "too_many_guesses",
}


def test_the_protocol_names_every_code_and_no_other() -> None:
    codes = {code for file in (ROOT / "shm").rglob("*.py") for code in CODE.findall(file.read_text())}
    table = (ROOT / "docs" / "protocol.md").read_text().partition("## Refusals")[2].partition("## Test vectors")[0]
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", table)) | {"unstorable"}
    assert codes - OF_THE_READERS == documented


def test_the_api_names_every_code_that_only_readers_hear() -> None:
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", (ROOT / "docs" / "api.md").read_text()))
    assert documented >= OF_THE_READERS
