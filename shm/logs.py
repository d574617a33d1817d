"""What the server's log may hold: our own sentences, and never an address, a token or a body.

Tornado's three loggers write client addresses into access lines, malformed-request warnings and tracebacks, so they
are cut off; what they would have said is said by `handlers.base` without the request.
"""

import logging
import sys

SILENCED = ("tornado.access", "tornado.application", "tornado.general")


def configure(level: int = logging.INFO) -> None:
    """Sends the log to standard error, and cuts off the loggers that know client addresses."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(message)s", force=True)
    for name in SILENCED:
        silenced = logging.getLogger(name)
        silenced.handlers = [logging.NullHandler()]
        silenced.propagate = False
