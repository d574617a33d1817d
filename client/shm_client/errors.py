"""The errors of a request. Each message is one sentence that says what a person can correct.

ClientError
├── RefusedError             the token is invalid, or its role is too small (401, 403)
├── ServerUnavailableError   no response, or the server is not ready (429, 502, 503, 504)
├── UnknownApplicationError  no application has this slug (404)
├── InvalidResponseError     the response is not SHM's
├── IncompatibleServerError  the server's API is older or newer than this client's
└── TooManyInstancesError    more instances than a feed keeps track of
"""


class ClientError(Exception):
    """The base class. `str(error)` is the sentence.

    `is_final`: the server answered, and answers the same request in the same way until something else has changed.
    """

    is_final = False


class RefusedError(ClientError):
    """The server answered 401 or 403."""

    is_final = True


class ServerUnavailableError(ClientError):
    """No response, or the server is not ready. `retry_after_s` is the wait that the server asked for, or None."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownApplicationError(ClientError):
    """No application has this slug."""

    is_final = True


class InvalidResponseError(ClientError):
    """The response does not have the form of SHM's API."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class IncompatibleServerError(ClientError):
    """The API level of the server is another one than this client's. The message says which side to upgrade."""

    def __init__(self, message: str, *, is_too_old: bool) -> None:
        super().__init__(message)
        self.is_too_old = is_too_old


class TooManyInstancesError(ClientError):
    """A feed covers more instances than MAX_INSTANCES."""
