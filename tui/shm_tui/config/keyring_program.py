"""A process of its own that uses the user's keyring: reads one request from standard input, and writes one answer.

The library `keyring` is an optional dependency, and its backends talk to other programs: they may hang, wait for the
user to unlock the keyring, or print something. So the console loads none of them.
"""

import os
import sys
from contextlib import suppress

import msgspec

SERVICE = "shm-console"  # of all tokens in the keyring; the user's name is the server's address


class Request(msgspec.Struct, tag=True):
    """The base of the requests."""


class Describe(Request):
    """Asks which keyring there is."""


class Find(Request):
    """Asks for the token of a server."""

    server: str


class Keep(Request):
    """Stores a token in place of the one before."""

    server: str
    token: str


class Forget(Request):
    """Removes the token of a server."""

    server: str


class Answer(msgspec.Struct):
    """`value` is the keyring's name or the token; `error` says why there is none."""

    value: str | None = None
    error: str = ""


def main() -> None:
    """Answers the request on standard input. What a backend prints goes nowhere."""
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Describe | Find | Keep | Forget)
    try:
        answer = Answer(_carry_out(request))
    except Exception as error:  # backends raise errors of their own libraries too
        answer = Answer(error=str(error) or type(error).__name__)
    with suppress(BrokenPipeError):
        os.write(output, msgspec.json.encode(answer))


def _carry_out(request: Describe | Find | Keep | Forget) -> str | None:
    from keyring import core
    from keyring.errors import PasswordDeleteError

    # The backend that the user has chosen; without a choice, none that keeps passwords in a file.
    core.init_backend(core.recommended)
    backend = core.get_keyring()
    match request:
        case Describe():
            return backend.name if backend.priority > 0 else None
        case Find(server):
            return backend.get_password(SERVICE, server)
        case Keep(server, token):
            backend.set_password(SERVICE, server, token)
            if backend.get_password(SERVICE, server) != token:
                raise ValueError(f"{backend.name} does not keep it")
        case Forget(server):
            with suppress(PasswordDeleteError):  # it is gone already
                backend.delete_password(SERVICE, server)
    return None


if __name__ == "__main__":
    main()
