"""The audit trail: the changes by admins within a year, the newest first, for an admin."""

import asyncio
from collections.abc import Callable

from shm_client import Client
from shm_client.figures import AuditEntry
from shm_tui.model.place import Place
from shm_tui.model.views.base import Frame, Page, PageRow, View
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


class AuditView(View):
    """Who changed what."""

    def __init__(self) -> None:
        self._entries: list[AuditEntry] | None = None
        self._token_names: dict[str, str] = {}

    @property
    def has_data(self) -> bool:
        """Whether the changes have been loaded."""
        return self._entries is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the changes, and the names of the tokens."""
        self._entries, tokens = await asyncio.gather(client.audit(PAGE_SIZE), client.tokens(TOKENS))
        self._token_names = {token.id: token.name for token in tokens}

    def document(self) -> object:
        """The changes."""
        return self._entries

    def page(self, frame: Frame) -> Page:
        """A row for each change."""
        entries = self._entries or []
        count = f"the newest {len(entries):,}" if len(entries) >= PAGE_SIZE else plural(len(entries), "change")
        table = make_table(COLUMNS, [self._cells(entry, frame) for entry in entries], frame.width - 2)
        rows = [PageRow(entry.id, ((" ", ""), *line)) for entry, line in zip(entries, table.rows, strict=True)]
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
