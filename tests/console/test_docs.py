"""The console's guide says what the code does: its tables are held to the places where the things are defined."""

import argparse
import re
from pathlib import Path

import pytest

from shm_tui import access, command, report
from shm_tui.actions import ACTIONS
from shm_tui.model import filter, live_session, row_store
from shm_tui.model.state import State
from shm_tui.widgets import dashboard

GUIDE = (Path(__file__).parents[2] / "docs/console.md").read_text(encoding="utf-8")
MEND = "mend docs/console.md"


def section(title: str) -> str:
    """What stands under a title, with its subsections."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##? |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/console.md has no section {title}"
    return found[2].split("\n### ")[0] if found[1] == "###" else found[2]


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose first cell is `head`."""
    _, _, rest = text.partition(f"| {head} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines, f"no table {head}"
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def words(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def options() -> list[argparse.Action]:
    """The options of the command, without its help."""
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser)
    return list(parser._actions)


@pytest.mark.parametrize("group", dict.fromkeys(action.group for action in ACTIONS))
def test_each_key_stands_in_its_group_with_what_it_does(group: str) -> None:
    documented = [(" ".join(words(keys)), does) for keys, does in table(section(group), "key")]
    assert documented == [(action.key_label, action.help) for action in ACTIONS if action.group == group], MEND


def test_each_state_stands_with_its_shape_and_meaning() -> None:
    documented = [(glyph.strip("`"), word, meaning) for glyph, word, meaning in table(section("States"), "| state")]
    assert documented == [(state.glyph, state.label, state.meaning) for state in State], MEND


def test_each_option_stands_in_the_table_and_no_other() -> None:
    rows = table(section("Opening it"), "option")
    assert [words(row[0]) for row in rows] == [list(option.option_strings) for option in options()], MEND
    defaults = {row[0].strip("`"): row[1] for row in rows}
    assert command.DEFAULT_SCREENSHOT_SIZE in defaults["--size"]
    assert access.DEFAULT_SERVER in defaults["--server"]
    assert access.TOKEN_FILE in defaults["--token"]


def test_each_variable_that_is_read_is_named_and_no_other() -> None:
    source = Path(access.__file__).read_text(encoding="utf-8")
    read = set(re.findall(r'environ(?:\.get\(|\[)"(SHM_\w+)"', source))
    assert read == {"SHM_SERVER", "SHM_TOKEN", "SHM_ADMIN_TOKEN", "SHM_DATA_DIR"}
    assert set(re.findall(r"SHM_\w+", section("Opening it"))) == read, MEND


def test_each_field_of_the_filter_stands_in_the_table_and_no_other() -> None:
    rows = table(section("The filter"), "field")
    documented = [name for row in rows for name in words(row[0])]
    assert sorted(documented) == sorted([*filter.TEXT_FIELDS, *filter.TIME_FIELDS, *filter.STATUS_FIELDS]), MEND
    (statuses,) = [words(row[1]) for row in rows if "status" in row[0]]
    assert sorted(statuses) == sorted(filter.STATUSES), MEND


def test_each_filter_that_is_shown_is_one() -> None:
    examples = [words(row[0])[0] for row in table(section("The filter"), "filter")]
    assert len(examples) > 10
    for example in examples:
        assert filter.parse_filter(example, (), {"1.10": "a rank", "1.4.2": "another"}), example


def test_each_word_for_the_connection_is_explained() -> None:
    rows = table(section("When the server is unavailable"), "the top line says")
    assert [words(row[0]) for row in rows] == [[phase.value] for phase in live_session.Phase], MEND


def test_the_parts_of_the_json_document_are_named() -> None:
    sentence = re.search(r"The JSON document has (.*?);", section("Without a terminal"), re.DOTALL)
    assert sentence
    assert words(sentence[1]) == list(report.Report.__struct_fields__), MEND


@pytest.mark.parametrize(
    "sentence",
    [
        f"{row_store.MAX_ROWS:,} instances",
        f"from {dashboard.MIN_SIDEBAR_WIDTH} columns on",
        f"Below {dashboard.MIN_SIDEBAR_WIDTH} columns",
        f"the {report.MAX_APPLICATIONS} largest applications",
        f"the {report.MAX_INSTANCES} instances",
        "and uncut where there is neither",
        f"at most {command.SSH_ENV['TEXTUAL_FPS']} times a second",
        f"The active window is {live_session.DEFAULT_ACTIVE_WINDOW_S // 86400} days",
    ],
)
def test_numbers_are_those_of_the_code(sentence: str) -> None:
    assert sentence in " ".join(GUIDE.split()), MEND
