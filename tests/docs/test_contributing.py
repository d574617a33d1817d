"""CONTRIBUTING.md names files and directories that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIRECTORIES = ("shm", "client", "tui", "sdk", "sql", "tests", "bench", "docs")
PATH = re.compile(rf"`((?:{'|'.join(DIRECTORIES)})/[\w./-]*)`")


@pytest.mark.parametrize("path", sorted(set(PATH.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))))
def test_each_path_exists(path: str) -> None:
    assert (ROOT / path).exists(), "correct CONTRIBUTING.md"
