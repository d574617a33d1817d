"""What can go wrong between a client and its server; every message is one sentence a person can act on.

ClientError
├── RefusedError             the server does not know the token, or its role is too small (401, 403)
├── UnreachableError         no answer, or the server says that it is not ready (429, 502, 503, 504)
├── UnknownApplicationError  no application has this slug (404)
├── AnswerError              an answer that is not SHM's
└── TooManyInstancesError    more instances than a feed keeps track of
"""


class ClientError(Exception):
    """The root of the tree. `str(error)` is the sentence."""


class RefusedError(ClientError):
    """The server answered 401 or 403."""


class UnreachableError(ClientError):
    """The server is away; trying again later may help, after `retry_after` seconds where it said when."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class UnknownApplicationError(ClientError):
    """No application has this slug."""


class AnswerError(ClientError):
    """Something answered, but not as SHM does."""


class TooManyInstancesError(ClientError):
    """A feed of all instances has more of them than MOST_INSTANCES."""
