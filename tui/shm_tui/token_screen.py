"""Asks for a token if there is none or the server has refused it, and whether to keep the new one."""

from functools import partial

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, Static

from shm_client import ClientError
from shm_tui.access import MAX_TOKEN_CHARS, UNENCRYPTED, check_token, is_unencrypted
from shm_tui.config.contexts import make_client
from shm_tui.config.kept_tokens import InKeyring, KeptTokens
from shm_tui.config.keyring import forget_token, keep_token, keyring_name
from shm_tui.dialog import Dialog
from shm_tui.errors import ConsoleError, KeyringError, TokenError


class TokenScreen(Dialog[str | None]):
    """A field for a token. Closes with one that the server has accepted, or with None."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,ctrl+c", "cancel", "cancel", priority=True),
        ("y", "answer(True)", "keep it"),
        ("n,enter", "answer(False)", "do not keep it"),
    ]

    def __init__(self, server: str, reason: str, kept: KeptTokens | None) -> None:
        """`kept`: where the token can be kept; None where nothing is written."""
        super().__init__()
        self._server = server
        self._reason = reason
        self._kept = kept
        self._token = ""  # that the server has accepted
        self._keyring = ""  # the name of the user's keyring; "" if the token is kept in the file
        self._awaits_answer = False  # to the question whether to keep it
        self._field = Input(password=True, max_length=MAX_TOKEN_CHARS, placeholder="shm_…", classes="field")
        self._note = Static("", classes="note", markup=False)

    def compose(self) -> ComposeResult:
        """The reason, the field, and a line below it."""
        parts = [self._reason]
        if is_unencrypted(self._server):
            parts.append(UNENCRYPTED)
        parts.append(f"Token for {self._server}:")
        with Vertical(id="token"):
            yield Static("\n\n".join(parts), markup=False)
            yield self._field
            yield self._note

    def on_mount(self) -> None:
        """Says what the keys do."""
        self._note.update("⏎ use it   Esc cancel")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Tries the token."""
        event.stop()
        try:
            token = check_token(event.value)
        except TokenError as error:
            self._note.update(str(error))
            return
        self._field.disabled = True  # what is typed meanwhile is no answer to the question that follows
        self._note.update("Asking the server…   Esc cancel")
        self.run_worker(partial(self._try, token), exclusive=True)  # type: ignore[arg-type] # mypy finds no overload

    async def _try(self, token: str) -> None:
        """Asks whether to keep a token that the server accepts. Another one can be corrected."""
        try:
            async with make_client(self._server, token) as client:
                await client.is_admin()
        except ClientError as error:
            self._field.disabled = False
            self._field.focus()
            self._note.update(str(error))
            return
        self._token = token
        if self._kept is None:
            self.dismiss(token)
            return
        self._keyring = await keyring_name()
        self._ask_to_keep(self._kept)

    def _ask_to_keep(self, kept: KeptTokens, problem: str = "") -> None:
        place = f"your keyring ({self._keyring})" if self._keyring else f"{kept.path}, which only you can read"
        self._note.update(f"{problem}Keep it in {place}?\n\ny keep it   n not")
        self._awaits_answer = True

    def action_answer(self, is_kept: bool) -> None:
        """Closes with the token, which is kept if that is wanted."""
        if not self._awaits_answer:
            return
        if is_kept and self._kept is not None:
            self._awaits_answer = False
            self.run_worker(partial(self._keep, self._kept), exclusive=True)  # type: ignore[arg-type] # mypy
        else:
            self.dismiss(self._token)

    async def _keep(self, kept: KeptTokens) -> None:
        """Keeps the token in the keyring or the file. Without success, offers the file in place of the keyring."""
        try:
            if self._keyring:
                self._note.update("Waiting for the keyring…   Esc use the token without keeping it")
                await keep_token(self._server, self._token)
            is_left = not self._keyring and kept.is_in_keyring(self._server)
            kept.keep(self._server, InKeyring() if self._keyring else self._token)
        except KeyringError as error:
            self._keyring = ""
            self._ask_to_keep(kept, f"{error}.\n\n")
        except ConsoleError as error:
            self._note.update(f"{error}\n\nn use it without keeping it")
            self._awaits_answer = True
        else:
            if not is_left or await self._forget_former():
                self.dismiss(self._token)

    async def _forget_former(self) -> bool:
        """Removes the previous token from the keyring, because nothing would read it again. False if that failed."""
        try:
            self._note.update("Removing the previous token from the keyring…   Esc leave it")
            await forget_token(self._server)
        except KeyringError as error:
            self._note.update(f"Kept. The keyring still has the previous token: {error}.\n\n⏎ continue")
            self._awaits_answer = True
            return False
        return True

    def action_cancel(self) -> None:
        """Closes without a token; one that has been accepted is used."""
        self.dismiss(self._token or None)
