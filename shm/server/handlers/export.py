"""`GET export`: a fleet as a file."""

from typing import Annotated

import msgspec

from shm.analytics import export
from shm.analytics.instances import InstanceFilter
from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import FEED_CURSOR, Header, Stream, operation

DISPOSITION = Header("Content-Disposition", "A file's name for whoever saves it.")
LEFT_OUT = Header(
    "X-Metrics-Left-Out", f"How many metrics have no column; at most {export.MAX_METRIC_COLUMNS} have.", int
)


class ExportQuery(InstanceFilter, frozen=True):
    """The query of `GET export`."""

    format: Annotated[export.Format, msgspec.Meta(description="A table, or a JSON object on each line.")] = "csv"


class Export(Handler):
    """`GET export`."""

    @operation(
        "exportInstances",
        Role.VIEWER,
        media=[*export.MEDIA_TYPES.values()],
        headers=[FEED_CURSOR, DISPOSITION, LEFT_OUT],
    )
    async def get(self, query: ExportQuery) -> Stream:
        """All instances with their current metrics, by ID.

        Each instance is as it is when it is read, and comes once. What changes after the cursor, the feed tells. An
        answer that is broken off is not whole. In CSV, texts that a spreadsheet would take for a formula have a `'`
        before them.
        """
        started = await export.open_export(self.services.items, query, query.format)
        self.set_feed_cursor(started.cursor)
        self.set_declared_header(LEFT_OUT, started.omitted_columns)
        self.set_declared_header(DISPOSITION, f'attachment; filename="instances.{query.format}"')
        return Stream(export.MEDIA_TYPES[query.format], started.chunks)
