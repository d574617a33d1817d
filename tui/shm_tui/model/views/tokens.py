"""The tokens of the API, for an admin."""

from shm_client import Client
from shm_client.figures import Token
from shm_tui.model.place import Place
from shm_tui.model.views.base import DataView, Frame, Page, PageRow
from shm_tui.text.formatting import UNKNOWN, plural, timestamp
from shm_tui.text.lines import Line, TableColumn, facts, make_table

PAGE_SIZE = 500  # the newest

COLUMNS = (
    TableColumn("NAME", max_width=32),
    TableColumn("ROLE"),
    TableColumn("LAST USED"),
    TableColumn("EXPIRES", rank=1),
    TableColumn("CREATED", rank=2),
    TableColumn("ID", rank=3),
)


class TokensView(DataView[list[Token]]):
    """All tokens, without their secrets."""

    async def fetch(self, client: Client, place: Place) -> list[Token]:
        """Requests the tokens."""
        return await client.tokens(PAGE_SIZE)

    def data_page(self, data: list[Token], frame: Frame) -> Page:
        """A row for each token, the newest first."""
        count = f"the newest {len(data):,}" if len(data) >= PAGE_SIZE else plural(len(data), "token")
        table = make_table(COLUMNS, [_cells(token, frame) for token in data], frame.width - 2)
        rows = [PageRow(token.id, ((" ", ""), *line)) for token, line in zip(data, table.rows, strict=True)]
        title = facts("Tokens", [count, "shm token adds, rotates and removes them"], frame.width)
        return Page([title, ((" ", ""), *table.head)], rows, empty="" if rows else "There is no token.")


def _cells(token: Token, frame: Frame) -> list[Line]:
    is_expired = token.expires_at is not None and token.expires_at <= frame.now
    expires = "never" if token.expires_at is None else timestamp(token.expires_at)
    used = UNKNOWN if token.last_used_on is None else token.last_used_on.isoformat()
    return [
        ((token.name, "value"),),
        ((token.role, "accent" if token.role == "admin" else "value"),),
        ((used, "name"),),
        ((f"{expires}, expired" if is_expired else expires, "warn" if is_expired else "name"),),
        ((timestamp(token.created_at), "name"),),
        ((token.id, "name"),),
    ]
