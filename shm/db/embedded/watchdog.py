"""Restarts an embedded PostgreSQL that died."""

import asyncio
import logging
import time

from shm.core.errors import ConfigurationError
from shm.core.logs import RateLimitedLogger
from shm.db.embedded.postgres import RestartIfDead

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)

CHECK_INTERVAL_S = 1.0  # between two checks, which are cheap
MAX_RESTART_DELAY_S = 15.0  # between two attempts to restart PostgreSQL: each starts processes and fills its log


class PostgresWatchdog:
    """Restarts PostgreSQL, with growing delays while the restart fails. Without `restart_if_dead` it does nothing."""

    def __init__(self, restart_if_dead: RestartIfDead | None) -> None:
        self._restart_if_dead = restart_if_dead
        self._delay_s = CHECK_INTERVAL_S
        self._due_at = 0.0

    async def run(self) -> None:
        """Checks PostgreSQL every second until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await asyncio.to_thread(self.check)

    def check(self) -> None:
        """Restarts PostgreSQL if it is dead. Call it every second, unless `run` is running."""
        if self._restart_if_dead is None or time.monotonic() < self._due_at:
            return
        try:
            if self._restart_if_dead():
                rate_limited.warning("the embedded PostgreSQL had died and was started again")
            self._delay_s = CHECK_INTERVAL_S
        except (ConfigurationError, OSError) as error:
            rate_limited.warning("the embedded PostgreSQL died and could not be started again", str(error))
            self._delay_s = min(self._delay_s * 2, MAX_RESTART_DELAY_S)
            self._due_at = time.monotonic() + self._delay_s
