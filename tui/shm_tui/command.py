"""`shm console`: the console in this terminal, or what it shows printed once."""

import argparse
import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

from shm_client import Client, ClientError
from shm_tui.access import data_dir, find_token, server_address
from shm_tui.errors import ConsoleError, NothingDrawnError
from shm_tui.text.sanitizing import clean_json

HELP = "Open the console in this terminal; with --once, print what it shows."

UNCUT = 100_000  # cells of a line where there is no terminal: whatever reads it can cut it
SIZE = "120x36"
SETTLE_LIMIT_S = 20.0  # a screenshot is taken by then, or it is said why not
SETTLE_S = 0.3  # for what is known to be drawn
QUIET = {"TEXTUAL_ANIMATIONS": "none"}
OVER_SSH = {"TEXTUAL_FPS": "15"}  # every frame crosses the network


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `shm console`."""
    parser.add_argument("--server", metavar="URL", help="Default: SHM_SERVER, else http://127.0.0.1:8080.")
    parser.add_argument(
        "--token",
        help="Default: SHM_TOKEN, SHM_ADMIN_TOKEN, else admin.token in the server's data directory. "
        "Others on this machine can see a command line: prefer the environment.",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="Where admin.token is. Default: SHM_DATA_DIR, else its own.")
    parser.add_argument("--app", metavar="SLUG", help="Begin with this application.")
    parser.add_argument("--once", action="store_true", help="Print the tables and end.")
    parser.add_argument("--json", action="store_true", help="With --once: the same as one JSON document.")
    parser.add_argument("--screenshot", metavar="FILE.svg", type=Path, help="Draw the screen into a file and end.")
    parser.add_argument("--size", default=SIZE, help=f"Of the screenshot, in cells. Default: {SIZE}.")


def run(args: argparse.Namespace) -> int:
    """Returns the exit status: 1 with a sentence on standard error when the server cannot be asked, 2 for usage."""
    if args.json and not args.once:
        return _complain("--json goes with --once.", 2)
    size = re.fullmatch(r"([1-9][0-9]{1,2})x([1-9][0-9]{0,2})", args.size)
    if not size:
        return _complain(f"--size {args.size} is none: wanted is one such as 120x36.", 2)
    try:
        server = server_address(args.server)
        token = find_token(args.token, data_dir(args.data_dir))
        if args.once:
            return _print(asyncio.run(_once(server, token, args.app, args.json)))
        if args.screenshot is not None:
            drawn = asyncio.run(_drawn(server, token, args.app, (int(size[1]), int(size[2]))))
            return _write(args.screenshot, drawn)
    except (ConsoleError, ClientError) as error:
        return _complain(str(error), 1)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _complain("The console needs a terminal; without one, --once prints what it shows.", 1)
    return _open(server, token, args.app)


def asked(server: str, token: str) -> Client:
    """The server, with every text that it says cleaned."""
    return Client(server, token, sanitize=clean_json)


async def _once(server: str, token: str, slug: str | None, as_json: bool) -> str:
    from shm_tui import once

    async with asked(server, token) as client:
        report = await once.look(client, slug)
    return once.as_json(report) if as_json else once.as_text(report, _width())


def _width() -> int:
    """As wide as the terminal, or as COLUMNS says; without either nothing is cut."""
    wanted = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size().columns if wanted else UNCUT


def _open(server: str, token: str, slug: str | None) -> int:
    for name, value in (QUIET | (OVER_SSH if os.environ.get("SSH_CONNECTION") else {})).items():
        os.environ.setdefault(name, value)
    from shm_tui.app import ConsoleApp

    async def opened() -> int:
        async with asked(server, token) as client:
            app = ConsoleApp(client, slug)
            await app.run_async()
            return app.return_code or 0

    return asyncio.run(opened())


async def _drawn(server: str, token: str, slug: str | None, size: tuple[int, int]) -> str:
    from shm_tui.app import ConsoleApp

    async with asked(server, token) as client:
        app = ConsoleApp(client, slug)
        async with app.run_test(size=size) as pilot:
            try:
                await asyncio.wait_for(app.settled.wait(), SETTLE_LIMIT_S)
            except TimeoutError:
                raise NothingDrawnError(app.watch_.link.reason or f"nothing came from {server} to draw") from None
            await pilot.pause(SETTLE_S)
            return app.export_screenshot(title="shm console")


def _print(text: str) -> int:
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its end
        return 1 if isinstance(error, BrokenPipeError) else _complain(f"nothing can be written: {error.strerror}", 1)
    return 0


def _write(file: Path, text: str) -> int:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        return _complain(f"{file} cannot be written: {error.strerror}", 1)
    return 0


def _complain(sentence: str, status: int) -> int:
    print(f"shm console: {sentence}", file=sys.stderr)  # noqa: T201
    return status
