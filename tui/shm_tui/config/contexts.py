"""Where a console connects to: from options, variables and the contexts of the configuration file."""

import argparse
import asyncio
import os
import select
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import IO

from shm_client import Client
from shm_tui.access import check_token, find_token, read_token_file, resolve_data_dir, resolve_server_url
from shm_tui.config import keyring
from shm_tui.config.file import Config, Context
from shm_tui.config.kept_tokens import KeptTokens
from shm_tui.errors import ConfigError, MissingTokenError, TokenError
from shm_tui.text.reversible_sanitizer import ReversibleSanitizer
from shm_tui.text.sanitizing import sanitize

TOKEN_COMMAND_TIMEOUT_S = 60.0  # a person may have to unlock a password store first
MAX_OUTPUT_BYTES = 16 * 1024  # of a token command: a token and a newline


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the token for it; None if the keyring has it, or there is none: the user has to be asked."""

    server: str
    token: str | None
    context: str = ""  # its name; "" for a server that an option or a variable names


def make_client(server: str, token: str) -> Client:
    """A client that sanitizes every string of the server's responses."""
    sanitizer = ReversibleSanitizer()
    return Client(server, token, sanitize=sanitizer, restore=sanitizer.restore)


def first_target(
    args: argparse.Namespace, config: Config, kept: KeptTokens | None, environ: Mapping[str, str] = os.environ
) -> Target:
    """The target at the start. An option precedes a variable, and that the default context. Raises ConsoleError."""
    name = args.context or ("" if args.server or environ.get("SHM_SERVER") else config.default_context)
    context = _find(name, config) if name else None
    server = context.url if context is not None else resolve_server_url(args.server, environ)
    option = args.token or (_token_of(name, context, config.path.parent) if context is not None else None)
    try:
        directory = resolve_data_dir(args.data_dir, environ)
        waits = bool(args.once or args.screenshot)
        token = find_token(option, directory, server, environ, partial(_find_kept, kept, server, waits=waits))
    except MissingTokenError:
        if args.once or args.screenshot or args.restricted:
            raise
        return Target(server, None, name)
    return Target(server, token, name)


def context_target(name: str, config: Config, kept: KeptTokens | None, data_dir: str | None = None) -> Target:
    """The target of a context, once the console runs. Variables with tokens are for the first server only.

    Raises ConsoleError.
    """
    context = _find(name, config)
    option = _token_of(name, context, config.path.parent)
    try:
        token = find_token(option, resolve_data_dir(data_dir), context.url, {}, partial(_find_kept, kept, context.url))
    except MissingTokenError:
        return Target(context.url, None, name)
    return Target(context.url, token, name)


def _find_kept(kept: KeptTokens | None, server: str, *, waits: bool = False) -> str | None:
    """The kept token. One in the keyring it `waits` for, or raises MissingTokenError: the console requests it later."""
    if kept is None or not kept.is_in_keyring(server):
        return kept.find(server) if kept is not None else None
    if not waits:
        raise MissingTokenError("the keyring has the token")
    return asyncio.run(keyring.find_token(server))


def _find(name: str, config: Config) -> Context:
    context = config.contexts.get(name)
    if context is None:
        known = f": {', '.join(config.contexts)}" if config.contexts else ""
        raise ConfigError(f"{config.path} has no context “{sanitize(name, 40)}”{known}")
    return context


def _token_of(name: str, context: Context, folder: Path) -> str | None:
    """The token of a context's own source. A relative path is relative to the configuration file."""
    if context.token_file:
        return read_token_file(folder / Path(context.token_file).expanduser())
    return _run(name, context.token_command) if context.token_command else None


def _run(name: str, command: tuple[str, ...]) -> str:
    """The token that a context's command prints. The command has the terminal: it may ask for a passphrase."""
    what = f"token_command of context {name}"
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                output = _read_output(process, process.stdout)
            except TokenError as error:
                process.kill()
                raise TokenError(f"{what} {error}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has a null character"
        raise TokenError(f"{what} cannot be run: {reason}") from None
    if process.returncode:
        raise TokenError(f"{what} ended with status {process.returncode}")
    lines = output.decode(errors="replace").strip().splitlines()
    if not lines:
        raise TokenError(f"{what} printed nothing")
    return check_token(lines[0])


def _read_output(process: "subprocess.Popen[bytes]", pipe: IO[bytes] | None) -> bytes:
    """All that the process prints until its end. Raises TokenError."""
    deadline, output = monotonic() + TOKEN_COMMAND_TIMEOUT_S, b""
    while pipe is not None and select.select([pipe], [], [], max(0.0, deadline - monotonic()))[0]:
        part = os.read(pipe.fileno(), MAX_OUTPUT_BYTES)
        output += part
        if len(output) > MAX_OUTPUT_BYTES:
            raise TokenError(f"printed more than {MAX_OUTPUT_BYTES // 1024} KiB")
        if not part:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - monotonic()))
                return output
            break
    raise TokenError(f"did not end within {TOKEN_COMMAND_TIMEOUT_S:.0f} s")
