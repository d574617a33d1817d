"""The audit trail: the changes by admins within a year, the newest first, for an admin."""

import asyncio

from shm_client import Client
from shm_client.cancelling import result_of
from shm_client.figures import AuditEntry
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow
from shm_tui.model.views.tokens import PAGE_SIZE as TOKENS
from shm_tui.text.formatting import age, plural, timestamp
from shm_tui.text.lines import Line, TableColumn, facts, make_table

PAGE_SIZE = 1_000  # the newest: a person reads no more
COMMAND = "a command on the database"

COLUMNS = (
    TableColumn("AGO", align_right=True),
    TableColumn("CHANGE"),
    TableColumn("TARGET", max_width=36),
    TableColumn("TOKEN", max_width=32, rank=1),
    TableColumn("TIME", rank=2),
)


class AuditView(DataView[list[AuditEntry]]):
    """Who changed what."""

    def __init__(self) -> None:
        super().__init__()
        self._token_names: dict[str, str] = {}

    async def fetch(self, client: Client, place: Place) -> list[AuditEntry]:
        """Requests the changes, and the names of the tokens."""
        entries, tokens = await result_of(asyncio.gather(client.audit(PAGE_SIZE), client.tokens(TOKENS)))
        self._token_names = {token.id: token.name for token in tokens}
        return entries

    def data_page(self, data: list[AuditEntry], frame: Frame) -> Page:
        """A row for each change."""
        count = f"the newest {len(data):,}" if len(data) >= PAGE_SIZE else plural(len(data), "change")
        table = make_table(COLUMNS, [self._cells(entry, frame) for entry in data], frame.width - 2)
        rows = [PageRow(entry.id, ((" ", ""), *line)) for entry, line in zip(data, table.rows, strict=True)]
        empty = "" if rows else "No admin has changed anything within a year."
        return Page(
            [facts("Audit trail", [count, "within a year"], frame.width), ((" ", ""), *table.head)], rows, empty=empty
        )

    def _cells(self, entry: AuditEntry, frame: Frame) -> list[Line]:
        token = COMMAND if entry.token_id is None else self._token_names.get(entry.token_id, entry.token_id)
        return [
            ((age(entry.at, frame.now), "name"),),
            ((entry.action.replace("_", " "), "value"),),
            ((self._token_names.get(entry.target, entry.target), "value"),),
            ((token, "name"),),
            ((timestamp(entry.at), "name"),),
        ]
