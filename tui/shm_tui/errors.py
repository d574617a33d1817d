"""What can go wrong between the console and the server; every message is one sentence a person can act on.

ConsoleError
├── AddressError             the server's address is not one
├── TokenError               no token was given or found
├── RefusedError             the server does not know the token, or its role is too small (401, 403)
├── UnreachableError         no answer, or the server says that it is not ready (503)
├── UnknownApplicationError  no application has this slug
└── AnswerError              an answer that is not SHM's
"""


class ConsoleError(Exception):
    """The root of the tree. `str(error)` is the sentence."""


class AddressError(ConsoleError):
    """The address of the server cannot be used."""


class TokenError(ConsoleError):
    """Nothing says who is asking."""


class RefusedError(ConsoleError):
    """The server answered 401 or 403."""


class UnreachableError(ConsoleError):
    """The server is away; trying again later may help."""


class UnknownApplicationError(ConsoleError):
    """No application has this slug."""


class AnswerError(ConsoleError):
    """Something answered, but not as SHM does."""
