"""The user's keyring, which another process uses: `keyring_program`. The token goes through pipes only."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec

import msgspec

from shm_tui.access import MAX_TOKEN_CHARS
from shm_tui.config.keyring_program import Answer, Describe, Find, Forget, Keep, Request
from shm_tui.errors import KeyringError
from shm_tui.text.sanitizing import sanitize

DESCRIBE_TIMEOUT_S = 10.0  # the start of a process that asks the session's bus which services there are
KEYRING_TIMEOUT_S = 60.0  # a person may have to unlock the keyring first
MAX_NAME_CHARS = 60
MAX_REASON_CHARS = 120
MAX_ANSWER_BYTES = MAX_TOKEN_CHARS + 1024


async def keyring_name() -> str:
    """The name of the user's keyring; "" if there is none, or it does not answer."""
    if not sys.executable or find_spec("keyring") is None:
        return ""
    try:
        name = await _ask(Describe(), DESCRIBE_TIMEOUT_S)
    except KeyringError:
        return ""
    return sanitize(name or "", MAX_NAME_CHARS)


async def find_token(server: str) -> str | None:
    """The token of a server in the keyring. Raises KeyringError."""
    return await _ask(Find(server), KEYRING_TIMEOUT_S)


async def keep_token(server: str, token: str) -> None:
    """Stores a token in the keyring, in place of the one before. Raises KeyringError."""
    await _ask(Keep(server, token), KEYRING_TIMEOUT_S)


async def forget_token(server: str) -> None:
    """Removes the token of a server from the keyring, if there is one. Raises KeyringError."""
    await _ask(Forget(server), KEYRING_TIMEOUT_S)


async def _ask(request: Request, timeout_s: float) -> str | None:
    # In a session of its own: without the terminal, and killed together with what it starts. -P: the current directory
    # has no modules.
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "shm_tui.config.keyring_program"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise KeyringError(f"the keyring cannot be used: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate(msgspec.json.encode(request))
    except TimeoutError:
        raise KeyringError(f"the keyring did not answer within {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    try:
        answer = msgspec.json.decode(output[:MAX_ANSWER_BYTES], type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KeyringError("the keyring cannot be used: its program has ended") from None
    if answer.error:
        raise KeyringError(f"the keyring cannot be used: {sanitize(answer.error, MAX_REASON_CHARS)}")
    return answer.value
