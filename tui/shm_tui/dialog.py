"""The base of all screens above the main one."""

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, ScreenResultType


class Dialog(ModalScreen[ScreenResultType]):
    """A screen that closes once. A key or a click that was sent ahead would close the screen below, or fail."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Closes the screen if it is on top."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()
