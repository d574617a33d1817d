"""The tokens of the API, for an admin."""

from collections.abc import Callable

from shm_client import Client
from shm_client.figures import Token
from shm_tui.model.place import Place
from shm_tui.model.views.base import Frame, Page, PageRow, View
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


class TokensView(View):
    """All tokens, without their secrets."""

    def __init__(self) -> None:
        self._tokens: list[Token] | None = None

    @property
    def has_data(self) -> bool:
        """Whether the tokens have been loaded."""
        return self._tokens is not None

    async def load(self, client: Client, place: Place, on_change: Callable[[], None]) -> None:
        """Requests the tokens."""
        self._tokens = await client.tokens(PAGE_SIZE)

    def document(self) -> object:
        """The tokens."""
        return self._tokens

    def page(self, frame: Frame) -> Page:
        """A row for each token, the newest first."""
        tokens = self._tokens or []
        count = f"the newest {len(tokens):,}" if len(tokens) >= PAGE_SIZE else plural(len(tokens), "token")
        table = make_table(COLUMNS, [_cells(token, frame) for token in tokens], frame.width - 2)
        rows = [PageRow(token.id, ((" ", ""), *line)) for token, line in zip(tokens, table.rows, strict=True)]
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
