"""Why a console cannot even ask; what a server answers or does not is in `shm_client.errors`.

ConsoleError
├── AddressError       the server's address is not one
├── TokenError         no token was given or found
└── NothingDrawnError  a screenshot was wanted, and nothing came to draw
"""


class ConsoleError(Exception):
    """The root of the tree. `str(error)` is one sentence a person can act on."""


class AddressError(ConsoleError):
    """The address of the server cannot be used."""


class TokenError(ConsoleError):
    """Nothing says who is asking."""


class NothingDrawnError(ConsoleError):
    """Nothing came from the server in time."""
