"""The `shm` command. Its subcommands are entry points, so the server does not import the console.

An entry point of the group `shm.commands` names a module with `HELP`, `configure(parser)` and `run(args) -> int`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, distribution
from typing import TYPE_CHECKING, Protocol

import shm
from shm.core.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

DISTRIBUTION = "shm-server"
GROUP = "shm.commands"


class Command(Protocol):
    """The interface of a subcommand's module."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the subcommand's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Runs the subcommand and returns its exit status. Raises ConfigurationError if it cannot start."""


class _Parser(argparse.ArgumentParser):
    """A parser, of the subcommands too, that does not ignore that its help cannot be written to standard output."""

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        from shm.cli.terminal import BROKEN_PIPE_STATUS, flush_results, print_result

        try:
            print_result(message.removesuffix("\n"))
            flush_results()
        except BrokenPipeError:
            sys.exit(BROKEN_PIPE_STATUS)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `shm` script."""
    os.umask(os.umask(0o077) & 0o077)  # what this user creates, it may use
    _reopen_closed_streams()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except ConfigurationError as error:
        print(f"shm: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _reopen_closed_streams() -> None:
    """Opens the standard streams that the caller has closed, for which Python has None.

    A write to standard output then fails as one to a full disk does. Messages for people are discarded.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))


def command_entry_points() -> dict[str, EntryPoint]:
    """Name -> entry point of each subcommand. Other installed distributions are not searched: that takes longer."""
    return {point.name: point for point in distribution(DISTRIBUTION).entry_points.select(group=GROUP)}


def _run(arguments: list[str]) -> int:
    """Imports only the module of the requested subcommand."""
    commands = command_entry_points()
    parser = _Parser(
        prog="shm",
        description="SHM (Self-Hosted Metrics): privacy-first telemetry for self-hosted software.",
        epilog="`shm COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"shm {shm.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    requested = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name in sorted(commands):
        if requested is None or requested not in commands or requested == name:
            _add_command(subparsers, commands[name])
    args = parser.parse_args(arguments)
    command: Command = args.command
    return command.run(args)


def _add_command(subparsers: "argparse._SubParsersAction[_Parser]", point: EntryPoint) -> None:
    command: Command = point.load()
    subparser = subparsers.add_parser(point.name, help=command.HELP, description=command.HELP)
    command.configure(subparser)
    subparser.set_defaults(command=command)


if __name__ == "__main__":
    sys.exit(main())
