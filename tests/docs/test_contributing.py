"""CONTRIBUTING.md names files and directories that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("shm", "client", "tui", "sdk", "sql", "tests", "bench", "docs")
PATH = re.compile(rf"`((?:{'|'.join(PLACES)})/[\w./-]*)`")


@pytest.mark.parametrize("path", sorted(set(PATH.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))))
def test_each_path_exists(path: str) -> None:
    assert (ROOT / path).exists(), "mend CONTRIBUTING.md"
