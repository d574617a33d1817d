"""Settings that define figures, stored in the database so that all servers on it compute the same figures."""

import logging

from shm.core.settings import Settings
from shm.db.database import Database

logger = logging.getLogger(__name__)


async def persist_shared_settings(database: Database, settings: Settings) -> None:
    """Stores the active window and the uncounted environments of this server.

    If they differ from the stored ones, the background jobs recompute every figure.
    """
    async with database.dedicated_connection() as connection:
        changed = await connection.fetch_value(
            bool,
            "settings.persist",
            active_window=settings.active_window,
            uncounted_environments=sorted(settings.uncounted_environments),
        )
    if changed:
        logger.warning("SHM_ACTIVE_WINDOW or SHM_UNCOUNTED_ENVIRONMENTS has changed: all figures are recomputed")
