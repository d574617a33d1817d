"""docs/console.md matches the code: its tables are compared with the modules that define their contents."""

import argparse
import re
from pathlib import Path

import pytest
from rich.style import Style

from shm_tui import access, command, report
from shm_tui.actions import ACTIONS, SETTINGS_COMMANDS
from shm_tui.config.file import Context, _Tables, parse_config
from shm_tui.config.keys import config_name
from shm_tui.help_screen import help_text
from shm_tui.model import filter, live_session, row_store
from shm_tui.model.place import VIEW_NAMES, Place, parse_place
from shm_tui.model.state import State
from shm_tui.text import osc52
from shm_tui.widgets import dashboard

GUIDE = (Path(__file__).parents[2] / "docs/console.md").read_text(encoding="utf-8")
HINT = "correct docs/console.md"


def section(title: str) -> str:
    """The text of a section with its subsections."""
    match = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##? |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert match, f"docs/console.md has no section {title}"
    return match[2].split("\n### ")[0] if match[1] == "###" else match[2]


def table(text: str, first_heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    _, _, rest = text.partition(f"| {first_heading} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines, f"no table {first_heading}"
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def code_spans(cell: str) -> list[str]:
    """The texts in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def options() -> list[argparse.Action]:
    """The options of the command, without its help."""
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser)
    return list(parser._actions)


@pytest.mark.parametrize("group", dict.fromkeys(action.group for action in ACTIONS))
def test_each_key_is_documented_in_its_group(group: str) -> None:
    documented = [(" ".join(code_spans(keys)), help_text) for keys, help_text in table(section(group), "key")]
    assert documented == [(action.key_label, action.help) for action in ACTIONS if action.group == group], HINT


def test_each_line_of_the_help_fits_into_80_columns() -> None:
    room = int(80 * 0.96) - 5  # the box has 96 % of the screen, a padding and a scrollbar
    lines = help_text(lambda _: Style(), ACTIONS).plain.splitlines()
    assert [line for line in lines if len(line) > room] == []
    assert any(line.startswith("  status:active ") for line in lines)


def test_each_view_is_documented_with_its_key() -> None:
    keys = {action.name: action.key_label for action in ACTIONS}
    documented = {code_spans(view)[0]: code_spans(key)[0] for view, key, _ in table(section("Views"), "view")}
    assert set(documented) == set(VIEW_NAMES), HINT
    for view, key in documented.items():
        others = {"metric": keys["chart"], "instance": keys["open"]}
        assert key == keys.get(f"view('{view}')") or key == others.get(view, f"{keys['command']}{view}"), HINT


def test_each_documented_place_leads_somewhere_else() -> None:
    examples = [code_spans(row[0])[0] for row in table(section("Places"), "place")]
    assert len(examples) > 5
    for example in examples:
        assert parse_place(example, Place("x")) != Place("x"), example


def test_each_command_of_the_settings_is_documented() -> None:
    rows = table(section("The configuration file"), "command")
    documented = [(code_spans(command)[0], help_text) for command, help_text in rows]
    assert documented == [(command.usage, command.help) for command in SETTINGS_COMMANDS], HINT


def test_the_documented_configuration_file_is_valid_and_has_every_member() -> None:
    example = section("The configuration file").split("```toml\n")[1].split("```")[0]
    config = parse_config(Path("console.toml"), example.encode())
    members = [*_Tables.__struct_fields__, *Context.__struct_fields__]
    assert [name for name in members if name not in example] == [], HINT
    assert config.keys
    assert config.views.names("ledger")


def test_the_name_of_each_action_is_documented() -> None:
    documented = code_spans(section("Names of actions"))
    assert sorted(documented) == sorted(config_name(action) for action in ACTIONS), HINT


def test_each_state_is_documented_with_glyph_and_meaning() -> None:
    documented = [(glyph.strip("`"), label, meaning) for glyph, label, meaning in table(section("States"), "| state")]
    assert documented == [(state.glyph, state.label, state.meaning) for state in State], HINT


def test_the_table_has_exactly_the_options_of_the_command() -> None:
    rows = table(section("Opening it"), "option")
    assert [code_spans(row[0]) for row in rows] == [list(option.option_strings) for option in options()], HINT
    defaults = {row[0].strip("`"): row[1] for row in rows}
    assert command.DEFAULT_SCREENSHOT_SIZE in defaults["--size"]
    assert access.DEFAULT_SERVER in defaults["--server"]
    assert access.TOKEN_FILE in defaults["--token"]


def test_exactly_the_variables_that_are_read_are_documented() -> None:
    source = Path(access.__file__).read_text(encoding="utf-8")
    read = set(re.findall(r'environ(?:\.get\(|\[)"(SHM_\w+)"', source))
    assert read == {
        *("SHM_SERVER", "SHM_TOKEN", "SHM_TOKEN_FILE", "SHM_ADMIN_TOKEN", "SHM_ADMIN_TOKEN_FILE", "SHM_DATA_DIR")
    }
    assert set(re.findall(r"SHM_\w+", section("Opening it"))) == read, HINT


def test_the_table_has_exactly_the_fields_of_the_filter() -> None:
    rows = table(section("The filter"), "field")
    documented = [name for row in rows for name in code_spans(row[0])]
    assert sorted(documented) == sorted([*filter.TEXT_FIELDS, *filter.TIME_FIELDS, *filter.STATUS_FIELDS]), HINT
    (statuses,) = [code_spans(row[1]) for row in rows if "status" in row[0]]
    assert sorted(statuses) == sorted(filter.STATUSES), HINT


def test_each_documented_filter_is_valid() -> None:
    examples = [code_spans(row[0])[0] for row in table(section("The filter"), "filter")]
    assert len(examples) > 10
    for example in examples:
        assert filter.parse_filter(example, (), {"1.10": "a rank", "1.4.2": "another"}), example


def test_each_state_of_the_connection_is_documented() -> None:
    rows = table(section("When the server is unavailable"), "the top line says")
    assert [code_spans(row[0]) for row in rows] == [[phase.value] for phase in live_session.Phase], HINT


def test_the_members_of_the_json_document_are_documented() -> None:
    sentence = re.search(r"The JSON document has (.*?);", section("Without a terminal"), re.DOTALL)
    assert sentence
    assert code_spans(sentence[1]) == list(report.Report.__struct_fields__), HINT


@pytest.mark.parametrize(
    "sentence",
    [
        f"{row_store.MAX_ROWS:,} instances",
        f"from {dashboard.MIN_SIDEBAR_WIDTH} columns on",
        f"From {dashboard.MIN_DETAILS_WIDTH} columns on",
        f"from {dashboard.MIN_CHART_WIDTH} columns on",
        f"the {report.MAX_APPLICATIONS} largest applications",
        f"the {report.MAX_INSTANCES} instances",
        "and uncut where there is neither",
        f"less than {dashboard.MIN_WIDTH} columns or {dashboard.MIN_HEIGHT} lines",
        f"at most {command.SSH_ENV['TEXTUAL_FPS']} times a second",
        f"more than {osc52.MAX_BYTES:,} bytes",
        f"at most {osc52.MAX_BYTES:,} bytes",
        f"The active window is {live_session.DEFAULT_ACTIVE_WINDOW_S // 86400} days",
    ],
)
def test_the_documented_numbers_match_the_code(sentence: str) -> None:
    assert sentence in " ".join(GUIDE.split()), HINT
