"""The words of metric keys: a file of the vendor replaces members of the built-in one."""

from pathlib import Path

import pytest

from shm.core import metric_keys, metric_words
from shm.core.errors import ConfigurationError
from shm.core.settings import Settings

GERMAN = """
[system]
words = ["cpu", "speicher"]

[aggregates]
max = ["spitze"]
sum = ["gesamtrate"]

[units]
stunden = "h"
ms = ""
"""


def test_members_of_the_file_replace_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text(GERMAN)
    words = metric_words.read_metric_words(str(tmp_path / "words.toml"))
    assert words.system.words == {"cpu", "speicher"}
    assert words.system.prefixes == ("sys_", "app_")
    assert [words.aggregate_of(key.split()) for key in ("spitze", "max", "avg spitze", "avg", "gesamtrate avg")] == [
        "max",
        "sum",
        "max",
        "avg",
        "sum",
    ]
    assert words.unit_of(["laufzeit", "stunden"]) == "h"
    assert (words.unit_of(["disk", "pct"]), words.unit_of(["wait", "ms"])) == ("%", None)


@pytest.mark.parametrize(
    "text",
    [
        "[system",
        "[other]\nwords = []",
        '[aggregates]\nmode = ["often"]',
        '[aggregates]\nmax = ["Peak"]',
        '[aggregates]\nmax = ["two_words"]',
        "aggregates = 3",
        "[units]\nh = 3",
        "# " + "x" * metric_words.MAX_FILE_BYTES,
    ],
)
def test_an_invalid_file_ends_the_start_with_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"SHM_METRIC_WORDS=.* is invalid: expected a .*file"):
        Settings.load({"SHM_METRIC_WORDS": str(tmp_path / "words.toml")})


def test_a_missing_file_ends_the_start_with_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match="a readable file"):
        Settings.load({"SHM_METRIC_WORDS": "/nowhere/words.toml"})


def test_every_built_in_word_is_found_in_a_key() -> None:
    """A word that is not split as it is written would never match."""
    words = metric_words.built_in()
    listed = {*words.system.words, *words.ambiguous.last, *words.units}.union(*words.aggregates.values())
    for word in listed:
        assert metric_keys.split_words(f"some_{word}_x") == ["some", word, "x"]
