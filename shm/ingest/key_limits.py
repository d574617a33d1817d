"""The limits of aggregated keys, values and versions.

Those that no current snapshot has are deleted, so that new ones can take their places.

`sql/parts/keys.sql` (`keys_admitted`) adds them, in the statement that stores snapshots.
"""

import msgspec

from shm.core.settings import Settings
from shm.db.database import Database

DELETE_PAGE_SIZE = 500  # keys, values or versions of a statement: some milliseconds under the writers' lock


def aggregation_limits(settings: Settings) -> dict[str, int]:
    """The limits as parameters of the statements with `keys_admitted`."""
    return {
        "max_keys": settings.max_keys,
        "max_values": settings.max_values,
        "max_all_values": settings.max_all_values,
        "max_versions": settings.max_versions,
    }


class KeyLimits:
    """Deletes unused keys, values and versions of one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def delete_unused_keys(self) -> bool:
        """Deletes a page of unused keys. Returns whether there may be more."""
        return await self._delete_page("keys", max_keys=self._settings.max_keys)

    async def delete_unused_values(self) -> bool:
        """Deletes a page of unused values. Returns whether there may be more."""
        return await self._delete_page(
            "values", max_values=self._settings.max_values, max_all_values=self._settings.max_all_values
        )

    async def delete_unused_versions(self) -> bool:
        """Deletes a page of unused versions. Returns whether there may be more."""
        return await self._delete_page("versions", max_versions=self._settings.max_versions)

    async def _delete_page(self, items: str, **limit: int) -> bool:
        rows = await self._database.fetch(
            dict, f"aggregated_keys.select_unused_{items}", limit=DELETE_PAGE_SIZE, **limit
        )
        if not rows:
            return False
        deleted = await self._database.execute(
            f"aggregated_keys.delete_unused_{items}", rows=msgspec.json.encode(rows).decode()
        )
        return len(rows) == DELETE_PAGE_SIZE and deleted > 0
