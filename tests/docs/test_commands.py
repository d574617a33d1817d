"""Commands in the documentation: `shm` has them with their options, their files exist, and their shell is shell."""

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shm.cli.main import Command, command_entry_points

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = command_entry_points()
COMMAND = re.compile(
    rf"^(?:[^\s=]*/)?shm (.*)|\bshm ((?:{'|'.join(NAMES)})\b.*)"
)  # at the start of a line, or after others
END = re.compile(r"[|;>&#]")  # of a command within a line of shell
USED = re.compile(r"\$\{?([A-Za-z_]+)")
QUOTED = re.compile(r"'[^']*'")
ASSIGNED = re.compile(r"(?:^|[\s;])([A-Za-z_]+)=")
DEPLOYED = re.compile(r"\bdeploy/[\w.-]+")


def shell_blocks(page: Path) -> Iterator[str]:
    """The shell of a page."""
    yield from re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shm_commands(page: Path) -> Iterator[str]:
    """The arguments of each `shm` in the shell of a page."""
    for block in shell_blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if match := COMMAND.search(line.partition("#")[0]):
                command = END.split(re.sub(r'"\$\([^)]*\)"', "FILE", match[1] or match[2]))[0].strip()
                yield command.rstrip("'") if command.count("'") % 2 else command


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="shm", exit_on_error=False)
    parser.add_argument("--version", action="store_true")
    subparsers = parser.add_subparsers(required=False)
    for name, point in NAMES.items():
        command: Command = point.load()
        command.configure(subparsers.add_parser(name, exit_on_error=False))
    return parser


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_of_shm(page: Path, parser: argparse.ArgumentParser) -> None:
    for command in shm_commands(page):
        try:
            parser.parse_args(shlex.split(command.replace("shm_...", "x").replace(" ID", f" {'0' * 32}")))
        except (argparse.ArgumentError, SystemExit) as error:
            pytest.fail(f"shm {command}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_shell_of_a_page_is_well_formed(page: Path) -> None:
    for block in shell_blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_of_a_page_is_set_on_it(page: Path) -> None:
    """A command that is copied with an undefined variable sends a request to another address than it shows."""
    names: set[str] = set()
    for block in shell_blocks(page):
        for line in block.splitlines():
            undefined = set(USED.findall(QUOTED.sub("", line))) - names
            names |= set(ASSIGNED.findall(line))
            assert undefined <= names, (line, undefined - names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_example_exists(page: Path) -> None:
    for name in DEPLOYED.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / name.rstrip(".")).exists(), name


def test_the_documentation_shows_every_command() -> None:
    named = {command.split()[0] for page in PAGES for command in shm_commands(page)}
    assert named >= NAMES.keys() - {"demo"}  # which `make demo` runs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_of_a_page_is_yaml(page: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        assert yaml.safe_load(block)
