"""What the server's log may hold: our own sentences, and never an address, a token or a body.

Tornado's three loggers write client addresses into access lines, malformed-request warnings and tracebacks, so they
are cut off; what they would have said is said by `handlers.base` without the request.
"""

import logging
import sys
import time

SILENCED = ("tornado.access", "tornado.application", "tornado.general")
SAY_AGAIN_S = 60.0  # what goes on is worth a line a minute


def configure(level: int = logging.INFO) -> None:
    """Sends the log to standard error, and cuts off the loggers that know client addresses."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(message)s", force=True)
    for name in SILENCED:
        silenced = logging.getLogger(name)
        silenced.handlers = [logging.NullHandler()]
        silenced.propagate = False


class Sparingly:
    """For what may happen a thousand times a second: each sentence once a minute, with how often it came since.

    Sentences are remembered, so they must be of a few kinds; what differs each time is their detail.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, tuple[float, int]] = {}

    def warning(self, sentence: str, detail: str) -> None:
        """Says it as a warning."""
        self._say(logging.WARNING, sentence, f": {detail}", with_traceback=False)

    def exception(self, sentence: str) -> None:
        """Says it as an error, with the traceback of the exception that is being handled."""
        self._say(logging.ERROR, sentence, "", with_traceback=True)

    def _say(self, level: int, sentence: str, detail: str, *, with_traceback: bool) -> None:
        now = time.monotonic()
        said_at, since = self._said.get(sentence, (-SAY_AGAIN_S, 0))
        if now - said_at < SAY_AGAIN_S:
            self._said[sentence] = said_at, since + 1
            return
        self._said[sentence] = now, 0
        more = f" (and {since} times since this was last said)" if since else ""
        self._logger.log(level, "%s%s%s", sentence, detail, more, exc_info=with_traceback)
