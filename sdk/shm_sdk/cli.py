"""The end user's commands: `python -m shm_sdk preview | status | check | on | off | erase | disclose`.

A host adds the same commands to its own command line with `add_commands` (argparse) or `click_group` (click).
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shm_sdk.client import Client
from shm_sdk.configuration import ConfigurationError
from shm_sdk.controls import Controls
from shm_sdk.identity import find_applications

if TYPE_CHECKING:
    import click

COMMANDS = {
    "preview": "print exactly what a report would send now, and send nothing",
    "status": "print whether telemetry is on, and why",
    "check": "send one report and print the response of the server",
    "on": "agree to telemetry",
    "off": "refuse telemetry",
    "erase": "turn telemetry off and have the server delete all data of this install",
    "disclose": "print everything that the server holds on this install",
}
SETTINGS = ("server_url", "app_name", "app_version", "data_dir")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0 done, 1 not done, 2 a wrong setting or argument."""
    parser = argparse.ArgumentParser(
        prog="python -m shm_sdk", description="See and decide what an application reports about this install."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        added = commands.add_parser(command, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        added.set_defaults(command=command)
        added.add_argument("--client", metavar="MODULE:NAME", help="the Client of the application's own code")
        for setting in SETTINGS:
            flag = f"--{setting.replace('_', '-')}"
            added.add_argument(flag, metavar="TEXT", help=f"instead of SHM_{setting.upper()}")
    options = parser.parse_args(arguments)
    try:
        return run(_find_client(options), options.command)
    except ConfigurationError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2


def add_commands(parser: argparse.ArgumentParser, client: Controls) -> None:
    """Adds the commands to a parser. Each parsed namespace gets `run`, which returns the exit status.

    options = parser.parse_args(); sys.exit(options.run(options))
    """
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        added = commands.add_parser(command, help=summary)
        added.set_defaults(run=_runner(client, command))


def click_group(client: Controls, name: str = "telemetry") -> "click.Group":
    """The commands as a click group, for `cli.add_command(click_group(client))`. click must be installed."""
    import click

    group = click.Group(name, help="See and decide what this application reports.")
    for command, summary in COMMANDS.items():
        execute = _runner(client, command)

        def callback(execute: Callable[[object], int] = execute) -> None:
            if status := execute(None):
                raise SystemExit(status)

        group.add_command(click.Command(command, callback=callback, help=f"{summary[0].upper()}{summary[1:]}."))
    return group


def run(client: Controls, command: str) -> int:
    """Runs one command and prints its result. Returns the exit status."""
    if command == "preview":
        return _print_preview(client)
    if command == "status":
        return _print_status(client)
    actions = {
        "check": client.check,
        "on": client.turn_on,
        "off": client.turn_off,
        "erase": client.erase,
        "disclose": client.disclose,
    }
    result = actions[command]()
    stream = sys.stdout if result.is_done else sys.stderr
    if command == "disclose" and result.document is not None:
        sys.stdout.write(f"{json.dumps(result.document, indent=2, ensure_ascii=False)}\n")
    else:
        stream.write(f"{result.text}.\n")
        if command in ("on", "off") and result.is_done:  # a host with another data directory does not read it
            sys.stdout.write(f"The choice is in {client.status().choice_file}.\n")
        if command == "erase" and result.document is not None:
            sys.stdout.write(f"{json.dumps(result.document, indent=2, ensure_ascii=False)}\n")
    return 0 if result.is_done else 1


def _runner(client: Controls, command: str) -> Callable[[object], int]:
    def execute(_: object) -> int:
        try:
            return run(client, command)
        except ConfigurationError as error:
            sys.stderr.write(f"{error}\n")
            return 2

    return execute


def _print_preview(client: Controls) -> int:
    preview = client.preview()
    if not preview.is_registered:
        sys.stdout.write(
            "This install has no ID yet: the one below is an example, and the first report makes another.\n"
        )
    for path, body in (("register", preview.register), ("snapshot", preview.snapshot)):
        document = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        sys.stdout.write(f"POST {preview.server_url}/v1/{path}\n{document}\n")
    sys.stdout.write("Nothing was sent.\n")
    return 0


def _print_status(client: Controls) -> int:
    status = client.status()
    sys.stdout.write(f"telemetry: {'on' if status.is_on else f'off, because {status.reason}'}\n")
    for name, value in status._asdict().items():
        if name not in ("is_on", "reason") and value not in ("", None):
            sys.stdout.write(f"{name}: {value}\n")
    return 0


def _find_client(options: argparse.Namespace) -> Controls:
    """The host's own Client, or one from the options and the environment."""
    if options.client:
        return _import_client(options.client)
    settings = {setting: getattr(options, setting) for setting in SETTINGS}
    if not (settings["app_name"] or os.environ.get("SHM_APP_NAME")):
        settings["app_name"] = _only_application(settings["data_dir"])
    return _QuietClient(**settings)


class _QuietClient(Client):
    """A Client whose settings are read by the action that needs them."""

    def __init__(self, **settings: str | None) -> None:
        super().__init__(**settings, enabled=False)  # type: ignore[arg-type]
        self._enabled = None


def _only_application(data_dir: str | None) -> str:
    """The application whose identity is in the data directory, or in the user's. Raises if it is not exactly one."""
    names = find_applications(data_dir, os.environ)
    if len(names) == 1:
        return names[0]
    known = f": one of {', '.join(names)}" if names else ""
    raise ConfigurationError(f"which application? Give --app-name, or --client MODULE:NAME{known}")


def _import_client(place: str) -> Controls:
    module, _, name = place.partition(":")
    try:
        client: object = importlib.import_module(module)
        for part in (name or "telemetry").split("."):
            client = getattr(client, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"--client {place} cannot be imported ({error})") from None
    if not isinstance(client, Controls):
        raise ConfigurationError(f"--client {place} is {type(client).__name__} and not a Client")
    return client
