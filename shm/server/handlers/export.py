"""`GET export`: all instances as a file."""

from typing import Annotated

import msgspec

from shm.analytics import export
from shm.analytics.instances import InstanceFilter
from shm.auth.tokens import Role
from shm.server.handlers.base import Handler
from shm.server.http.operations import FEED_CURSOR, Header, Stream, operation

DISPOSITION = Header("Content-Disposition", "A name for the downloaded file.")
OMITTED_COLUMNS = Header(
    "X-Metrics-Left-Out", f"The number of metrics without a column; at most {export.MAX_METRIC_COLUMNS} have one.", int
)


class ExportQuery(InstanceFilter, frozen=True):
    """The query of `GET export`."""

    format: Annotated[export.Format, msgspec.Meta(description="A table, or a JSON object on each line.")] = "csv"


class Export(Handler):
    """`GET export`."""

    @operation(
        "exportInstances",
        Role.VIEWER,
        media_types=[*export.MEDIA_TYPES.values()],
        headers=[FEED_CURSOR, DISPOSITION, OMITTED_COLUMNS],
    )
    async def get(self, query: ExportQuery) -> Stream:
        """All instances with their current metrics, by ID.

        Each instance is sent once, in its state when it is read. The feed sends changes after the cursor. A response
        whose connection breaks is incomplete. In CSV, a `'` precedes texts that a spreadsheet would evaluate as a
        formula.
        """
        exported = await export.open_export(self.services.instances, query, query.format)
        self.set_feed_cursor(exported.cursor)
        self.set_declared_header(OMITTED_COLUMNS, exported.omitted_columns)
        self.set_declared_header(DISPOSITION, f'attachment; filename="instances.{query.format}"')
        return Stream(export.MEDIA_TYPES[query.format], exported.chunks)
