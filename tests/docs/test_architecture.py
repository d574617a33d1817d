"""docs/architecture.md names files that exist, and names that are in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_, _, TABLE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Where to look")
ROWS = re.findall(r"^\| (.+) \| (`.+`.*) \| (`.+`) \|$", TABLE, re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")


@pytest.mark.parametrize(("question", "files", "names"), ROWS)
def test_each_name_is_in_a_file_of_its_row(question: str, files: str, names: str) -> None:
    text = "".join((ROOT / file).read_text(encoding="utf-8") for file in QUOTED.findall(files))
    assert not [name for name in QUOTED.findall(names) if not re.search(rf"\b{name}\b", text)], question
