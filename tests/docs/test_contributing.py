"""CONTRIBUTING.md names files and directories that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIRECTORIES = ("shm", "client", "tui", "sdk", "sql", "tests", "bench", "docs")
PATH = re.compile(rf"`((?:{'|'.join(DIRECTORIES)})/[\w./-]*)`")

FILE = re.compile(r"`(\w+\.(?:py|sql|md))`")
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(FILE.findall(TEXT))))
def test_each_file_exists(name: str) -> None:
    directories = [ROOT, *(ROOT / each for each in DIRECTORIES)]
    assert any(next(each.glob(f"**/{name}" if each != ROOT else name), None) for each in directories), name


@pytest.mark.parametrize("path", sorted(set(PATH.findall(TEXT))))
def test_each_path_exists(path: str) -> None:
    assert (ROOT / path).exists(), "correct CONTRIBUTING.md"
