"""`shm console`: opens the console in this terminal, or prints its data once."""

import argparse
import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

from shm_client import Client, ClientError
from shm_tui.access import find_token, is_loopback, resolve_data_dir, resolve_server_url
from shm_tui.errors import ConsoleError, NoDataError
from shm_tui.model.place import Place, PlaceError, parse_place
from shm_tui.restricted import remove_textual_variables, restricted_notice
from shm_tui.text.encoding import in_encoding, json_in_encoding
from shm_tui.text.sanitizing import sanitize, sanitize_json
from shm_tui.theme_names import DARK, THEME_NAMES

HELP = "Open the console in this terminal; with --once, print its data."

UNLIMITED_WIDTH = 100_000  # cells of a line where there is no terminal: lines are not cut
DEFAULT_SCREENSHOT_SIZE = "120x36"
SCREENSHOT_TIMEOUT_S = 20.0  # from the start to the first data; afterwards the command fails
SCREENSHOT_DELAY_S = 0.3  # from the first data to the picture, so that the last changes are drawn
UNENCRYPTED = "The server's address is http://, not https://: others on the network can read the token."
TERMINAL_ENV = {"TEXTUAL_ANIMATIONS": "none"}
SSH_ENV = {"TEXTUAL_FPS": "15"}  # every frame is sent over the network


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `shm console`."""
    parser.add_argument("--server", metavar="URL", help="Default: SHM_SERVER, else http://127.0.0.1:8080.")
    parser.add_argument(
        "--token",
        help="Default: SHM_TOKEN or SHM_ADMIN_TOKEN, or the file that SHM_TOKEN_FILE or SHM_ADMIN_TOKEN_FILE names, "
        "else, for a server on this machine, admin.token in its data directory. Others on this machine can see a "
        "command line: prefer the environment.",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="Where admin.token is. Default: SHM_DATA_DIR, else its own.")
    parser.add_argument("--app", metavar="SLUG", help="The first application to show.")
    parser.add_argument(
        "--view",
        metavar="PLACE",
        default="",
        help="The first place to show, as after `:` in the console: versions, ledger/metric/invoices_sent 3m.",
    )
    parser.add_argument("--theme", choices=THEME_NAMES, help=f"The colours. Default: {DARK}.")
    parser.add_argument(
        "--restricted",
        action="store_true",
        help="Execute and write nothing on this machine, whatever the user does: for ForceCommand of sshd.",
    )
    parser.add_argument("--once", action="store_true", help="Print the tables, or the --view, and exit.")
    parser.add_argument("--json", action="store_true", help="With --once: the same as one JSON document.")
    parser.add_argument(
        "--screenshot", metavar="FILE.svg", type=Path, help="Draw the screen into an SVG file and exit."
    )
    parser.add_argument(
        "--size",
        default=DEFAULT_SCREENSHOT_SIZE,
        help=f"Columns and rows of the screenshot. Default: {DEFAULT_SCREENSHOT_SIZE}.",
    )


def run(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, 1 if the server sends no data, 2 for wrong options. Errors go to standard error."""
    if args.json and not args.once:
        return _print_message("--json requires --once.", 2)
    size = re.fullmatch(r"([1-9][0-9]{1,2})x([1-9][0-9]{0,2})", args.size)
    if not size:
        return _print_message(f"--size {args.size} is invalid: expected columns and rows, such as 120x36.", 2)
    if args.restricted:
        if args.screenshot is not None:
            return _print_message(f"{restricted_notice('--screenshot')}.", 2)
        remove_textual_variables(os.environ)
    try:
        place = parse_place(args.view, Place(args.app))
    except PlaceError as error:
        return _print_message(f"--view {sanitize(args.view)} is invalid: {error}.", 2)
    try:
        server = resolve_server_url(args.server)
        token = find_token(args.token, resolve_data_dir(args.data_dir), server)
        if server.startswith("http://") and not is_loopback(server):
            _print_message(UNENCRYPTED, 0)
        if args.once:
            return _print(asyncio.run(_once(server, token, place, args.json)), args.json)
        if args.screenshot is not None:
            svg = asyncio.run(_render_screenshot(server, token, place, args.theme, (int(size[1]), int(size[2]))))
            return _write(args.screenshot, svg)
    except (ConsoleError, ClientError) as error:
        return _print_message(str(error), 1)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _print_message("The console needs a terminal. Without one, use --once.", 1)
    if os.environ.get("TERM") == "dumb":
        return _print_message("This terminal (TERM=dumb) cannot draw a screen. Use --once.", 1)
    return _open(server, token, place, args.theme, is_restricted=args.restricted)


def make_client(server: str, token: str) -> Client:
    """A client that sanitizes every string of the server's responses."""
    return Client(server, token, sanitize=sanitize_json)


async def _once(server: str, token: str, place: Place, as_json: bool) -> str:
    if place.view != "instances":
        return await _view_once(server, token, place, as_json)
    from shm_tui import report

    async with make_client(server, token) as client:
        data = await report.fetch_report(client, place)
    return report.to_json(data) if as_json else report.to_text(data, _width())


async def _view_once(server: str, token: str, place: Place, as_json: bool) -> str:
    from shm_tui import view_report

    async with make_client(server, token) as client:
        view, place = await view_report.fetch_view(client, place)
        if as_json:
            return view_report.to_json(client, view, place)
        return view_report.to_text(client, view, place, _width(), sys.stdout.encoding or "utf-8")


def _width() -> int:
    """The width of the terminal or of COLUMNS; without both, no limit."""
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size().columns if has_width else UNLIMITED_WIDTH


def _open(server: str, token: str, place: Place, theme: str | None, *, is_restricted: bool) -> int:
    for name, value in (TERMINAL_ENV | (SSH_ENV if os.environ.get("SSH_CONNECTION") else {})).items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        # Textual draws on it, and standard error is redirected, perhaps to a file.
        sys.__stderr__ = sys.__stdout__  # type: ignore[misc] # only type checkers take it for final
    from shm_tui.app import ConsoleApp

    async def run_app() -> int:
        async with make_client(server, token) as client:
            app = ConsoleApp(client, place=place, theme=theme, is_restricted=is_restricted)
            await app.run_async()
            return app.return_code or 0

    return asyncio.run(run_app())


async def _render_screenshot(server: str, token: str, place: Place, theme: str | None, size: tuple[int, int]) -> str:
    from shm_tui.app import ConsoleApp

    async with make_client(server, token) as client:
        app = ConsoleApp(client, place=place, theme=theme)
        async with app.run_test(size=size) as pilot:
            try:
                await asyncio.wait_for(app.data_shown.wait(), SCREENSHOT_TIMEOUT_S)
            except TimeoutError:
                raise NoDataError(
                    app.session.connection.reason or f"{server} sent no data in {SCREENSHOT_TIMEOUT_S:.0f} seconds"
                ) from None
            await pilot.pause(SCREENSHOT_DELAY_S)
            return app.export_screenshot(title="shm console")


def _print(text: str, as_json: bool) -> int:
    convert = json_in_encoding if as_json else in_encoding
    text = convert(text, sys.stdout.encoding or "utf-8")
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # otherwise Python reports the error again at exit
        return (
            1
            if isinstance(error, BrokenPipeError)
            else _print_message(f"standard output cannot be written: {error.strerror}", 1)
        )
    return 0


def _write(file: Path, text: str) -> int:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        return _print_message(f"{file} cannot be written: {error.strerror}", 1)
    return 0


def _print_message(sentence: str, status: int) -> int:
    print(f"shm console: {in_encoding(sentence, sys.stderr.encoding or 'utf-8')}", file=sys.stderr)  # noqa: T201
    return status
