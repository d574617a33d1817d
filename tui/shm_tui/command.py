"""`shm console`: opens the console in this terminal, or prints its data once."""

import argparse
import asyncio
import os
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from shm_client import ClientError
from shm_client.cancelling import end_tasks
from shm_tui.access import UNENCRYPTED, is_unencrypted
from shm_tui.config.contexts import first_target
from shm_tui.config.contexts import make_client as make_client
from shm_tui.config.file import Config, config_path, load_config
from shm_tui.config.kept_tokens import KeptTokens, tokens_path
from shm_tui.config.settings import Settings
from shm_tui.errors import ConfigError, ConsoleError, ListError, NoDataError
from shm_tui.gc_tuning import keep_screen, only_imports
from shm_tui.model.place import DEFAULT_APP, Place, PlaceError
from shm_tui.once import OnceOptions, invalid_options, print_note, run_once
from shm_tui.restricted import forbid_host_access, remove_textual_variables, restricted_notice
from shm_tui.text.sanitizing import sanitize
from shm_tui.text.table_formats import FORMATS
from shm_tui.theme_names import DARK, THEME_NAMES

HELP = "Open the console in this terminal; with --once, print its data."

DEFAULT_SCREENSHOT_SIZE = "120x36"
SCREENSHOT_TIMEOUT_S = 20.0  # from the start to the first data; afterwards the command fails
SCREENSHOT_DELAY_S = 0.3  # from the first data to the picture, so that the last changes are drawn
TERMINAL_ENV = {"TEXTUAL_ANIMATIONS": "none"}
SSH_ENV = {"TEXTUAL_FPS": "30"}  # every frame is sent over the network; at 15 a key would wait for up to 67 ms
SWITCH_INTERVAL_S = 0.0005  # threads read keys and write frames, and wait for it while the main thread is busy
ONCE_OPTIONS = ("json", "format", "columns", "watch")
RUNTIME_MODULES = (  # the screen, and what it imports when it connects and opens the terminal
    "shm_tui.app",
    "shm_client.websocket",
    "httpcore",
    "anyio._backends._asyncio",
    "textual.drivers.linux_driver",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `shm console`."""
    parser.add_argument(
        "--server", metavar="URL", help="Default: SHM_SERVER, else the default context, else http://127.0.0.1:8080."
    )
    parser.add_argument("--context", metavar="NAME", default="", help="A server of the configuration file.")
    parser.add_argument(
        "--token",
        help="Default: SHM_TOKEN or SHM_ADMIN_TOKEN, or the file that SHM_TOKEN_FILE or SHM_ADMIN_TOKEN_FILE names, "
        "else, for a server on this machine, admin.token in its data directory. Others on this machine can see a "
        "command line: prefer the environment.",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="The directory of admin.token. Default: SHM_DATA_DIR, else that of the server.",
    )
    parser.add_argument("--app", metavar="SLUG", help="The first application to show.")
    parser.add_argument(
        "--view",
        metavar="PLACE",
        default="",
        help="The first place to show, as after `:` in the console: versions, SLUG/metric/KEY 3m.",
    )
    parser.add_argument(
        "--theme", choices=THEME_NAMES, help=f"The colours. Default: that of the configuration file, else {DARK}."
    )
    parser.add_argument(
        "--restricted",
        action="store_true",
        help="Never start a program or write a file on this machine: for ForceCommand of sshd.",
    )
    parser.add_argument("--once", action="store_true", help="Print the tables, or the --view, and exit.")
    parser.add_argument("--json", action="store_true", help="With --once: the same as one JSON document.")
    parser.add_argument("--filter", metavar="TEXT", default="", help="The filter of the list, as after `/`.")
    parser.add_argument(
        "--sort", metavar="COLUMN", default="", help="The order of the list; --sort=-METRIC is descending."
    )
    parser.add_argument("--format", choices=FORMATS, help="With --once: all rows of the list or the view.")
    parser.add_argument(
        "--columns",
        metavar="LIST",
        default="",
        help="With --once: the columns of the list, with commas between them: instance,version,METRIC.",
    )
    parser.add_argument(
        "--watch", metavar="SECONDS", type=float, help="With --once: print it again and again, at this interval."
    )
    parser.add_argument(
        "--screenshot", metavar="FILE.svg", type=Path, help="Draw the screen into an SVG file and exit."
    )
    parser.add_argument(
        "--size",
        default=DEFAULT_SCREENSHOT_SIZE,
        help=f"Columns and rows of the screenshot. Default: {DEFAULT_SCREENSHOT_SIZE}.",
    )


def preload() -> None:
    """Imports what a console imports until it is on the screen, for a process whose forks become consoles."""
    remove_textual_variables(os.environ)
    os.environ.update(TERMINAL_ENV | SSH_ENV)  # Textual reads them when it is imported
    for name in RUNTIME_MODULES:
        import_module(name)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, 1 if the server sends no data, 2 for wrong options. Errors go to standard error."""
    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # an empty one has no meaning, but Textual does not look at the value
    if not args.once and (used := [name for name in ONCE_OPTIONS if getattr(args, name) not in (None, False, "")]):
        return _print_message(f"--{used[0]} requires --once.", 2)
    size = re.fullmatch(r"([1-9][0-9]{1,2})x([1-9][0-9]{0,2})", args.size)
    if not size:
        return _print_message(f"--size {args.size} is invalid: expected columns and rows, such as 120x36.", 2)
    if args.restricted:
        if args.screenshot is not None:
            return _print_message(f"{restricted_notice('--screenshot')}.", 2)
        remove_textual_variables(os.environ)
        forbid_host_access()
    try:
        settings, place = _prepare(args)
    except PlaceError as error:
        return _print_message(f"--view {sanitize(args.view)} is invalid: {error}.", 2)
    except ConfigError as error:
        return _print_message(str(error), 1)
    once = OnceOptions(replace(place, app=place.app or None), args.json, args.format, args.columns, args.watch)
    if args.once and (reason := invalid_options(once)):
        return _print_message(f"{reason}.", 2)
    try:
        target = first_target(args, settings.config, settings.kept)
        server, token = target.server, target.token or ""
        settings = replace(settings, context=target.context, has_token=target.token is not None)
        if is_unencrypted(server):
            _print_message(UNENCRYPTED, 0)
        if args.once:
            return run_once(server, token, once)
        if args.screenshot is not None:
            svg = asyncio.run(_render_screenshot(server, token, place, args.theme, (int(size[1]), int(size[2]))))
            return _write(args.screenshot, svg)
    except ListError as error:
        return _print_message(str(error), 2)
    except (ConsoleError, ClientError) as error:
        return _print_message(str(error), 1)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _print_message("The console needs a terminal. Without one, use --once.", 1)
    if os.environ.get("TERM") == "dumb":
        return _print_message("This terminal (TERM=dumb) cannot draw a screen. Use --once.", 1)
    return _open(server, token, place, args.theme, settings, is_restricted=args.restricted)


def _prepare(args: argparse.Namespace) -> tuple[Settings, Place]:
    """The configuration and the first place. Raises PlaceError and ConfigError."""
    path = config_path()
    config = Config(path) if args.restricted else load_config(path)
    kept = None if args.restricted else KeptTokens(tokens_path())
    place = config.views.parse(args.view, Place(args.app or DEFAULT_APP), (), tuple(config.contexts))
    place = replace(place, filter=sanitize(args.filter) or place.filter, sort=sanitize(args.sort) or place.sort)
    if place.context and (args.server or args.context not in ("", place.context)):
        raise PlaceError("it names another server than --server or --context")
    args.context = place.context or args.context
    if args.server and args.context:
        raise ConfigError("--server and --context exclude each other")
    return Settings(config, kept, args.context, data_dir=args.data_dir), replace(place, context="")


def _open(server: str, token: str, place: Place, theme: str | None, settings: Settings, *, is_restricted: bool) -> int:
    for name, value in (TERMINAL_ENV | (SSH_ENV if os.environ.get("SSH_CONNECTION") else {})).items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        # Textual draws on it, and standard error is redirected, perhaps to a file.
        sys.__stderr__ = sys.__stdout__  # type: ignore[misc] # only type checkers take it for final
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with only_imports():
        from shm_tui.app import ConsoleApp

    async def run_app() -> int:
        async with make_client(server, token) as client:
            app = ConsoleApp(client, place=place, theme=theme, settings=settings, is_restricted=is_restricted)
            tuning = asyncio.create_task(keep_screen(app.drawing.data_shown))
            try:
                await app.run_async()
            finally:
                await end_tasks([tuning])
            return app.return_code or 0

    return asyncio.run(run_app())


async def _render_screenshot(server: str, token: str, place: Place, theme: str | None, size: tuple[int, int]) -> str:
    from shm_tui.app import ConsoleApp

    async with make_client(server, token) as client:
        app = ConsoleApp(client, place=place, theme=theme)
        async with app.run_test(size=size) as pilot:
            try:
                await asyncio.wait_for(app.drawing.data_shown.wait(), SCREENSHOT_TIMEOUT_S)
            except TimeoutError:
                raise NoDataError(
                    app.session.connection.reason or f"{server} sent no data in {SCREENSHOT_TIMEOUT_S:.0f} seconds"
                ) from None
            await pilot.pause(SCREENSHOT_DELAY_S)
            return app.export_screenshot(title="shm console")


def _write(file: Path, text: str) -> int:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        return _print_message(f"{file} cannot be written: {error.strerror}", 1)
    return 0


def _print_message(sentence: str, status: int) -> int:
    print_note(sentence)
    return status
