"""What the counted words mean is agreed on in the database, so that all servers on it mean the same."""

import logging

from shm.core.settings import Settings
from shm.db.database import Database

logger = logging.getLogger(__name__)


async def persist_shared_settings(database: Database, settings: Settings) -> None:
    """Writes down the active window and the environments that are not counted, as this start has them.

    Where another start had others, every figure changes its meaning, and is computed anew in the background.
    """
    async with database.dedicated_connection() as connection:
        changed = await connection.fetch_value(
            bool,
            "settings.agree",
            active_window=settings.active_window,
            uncounted_environments=sorted(settings.uncounted_environments),
        )
    if changed:
        logger.warning("the active window or the environments that are not counted have changed: computing anew")
