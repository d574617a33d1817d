"""The pauses between requests that the server answers by a scan of many instances.

A console uses at most a tenth of the server's time for them, unless one takes more than three seconds.
"""

from time import monotonic

from shm_client import ClientError, ServerUnavailableError

MIN_INTERVAL_S = 2.0  # between two requests, while instances change
PAUSE_FACTOR = 9  # of the duration of a request
MAX_PAUSE_S = 30.0  # rows older than that are no longer useful, and a server that hung costs no more than a slow one
RETRY_S = 5.0  # after a failed request; the feed shows the failure


def pause_after(started_at: float, error: ClientError | None = None) -> float:
    """The seconds from the end of a request that began at a monotonic time until the next one.

    A request that the server ended because its scan took too long counts like an answer. Any other failure, such as a
    server that hung for a while, has cost it nothing.
    """
    pause_s = min(MAX_PAUSE_S, PAUSE_FACTOR * (monotonic() - started_at))
    if error is None:
        return max(MIN_INTERVAL_S, pause_s)
    is_too_slow = isinstance(error, ServerUnavailableError) and error.retry_after_s is not None
    return max(RETRY_S, pause_s) if is_too_slow else RETRY_S
