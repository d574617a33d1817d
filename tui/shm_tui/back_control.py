"""Back, close and interrupt: the keys that leave a prompt, the details, a view, a filter or an application, or quit."""

from time import monotonic

from textual.app import App

from shm_tui.navigation import Navigation
from shm_tui.place_control import PlaceControl
from shm_tui.widgets.dashboard import Dashboard

QUIT_CONFIRMATION_S = 3.0  # within which a second Ctrl+C ends the console


class BackControl:
    """Leaves what is on top. Nothing is lost: the history of the prompt has every filter that was in effect."""

    def __init__(
        self, app: App[None], dashboard: Dashboard, navigation: Navigation, place_control: PlaceControl
    ) -> None:
        self._app, self._dashboard, self._navigation, self._places = app, dashboard, navigation, place_control
        self._interrupted_at = -QUIT_CONFIRMATION_S  # the monotonic time of the last Ctrl+C

    @property
    def is_prompt_open(self) -> bool:
        """Whether a prompt receives the keys."""
        return self._navigation.filter.is_open or self._places.is_open

    @property
    def _is_list(self) -> bool:
        return self._navigation.place.view in ("instances", "fleet")

    def back(self) -> None:
        """Closes the prompt, the details, or the view, else shows all rows, then all applications."""
        navigation = self._navigation
        if navigation.filter.is_open:
            navigation.filter.close()
        elif self._places.is_open:
            self._places.close()
        elif self._dashboard.details.display:
            self._dashboard.show_details(False)
        elif not self._is_list:
            navigation.go(navigation.place.to_view("instances"))
        elif navigation.filter.text:
            navigation.filter.clear()
        elif navigation.place.view == "instances":
            navigation.go(navigation.place.to_view("fleet"))

    def close(self) -> None:
        """Closes the details or the view, else the console."""
        if self._dashboard.details.display or not self._is_list:
            self.back()
        else:
            self._app.exit()

    def interrupt(self) -> None:
        """Cancels the input of the prompt. Elsewhere, a second Ctrl+C ends the console."""
        if self._navigation.filter.is_open:
            self._navigation.filter.cancel()
        elif self._places.is_open:
            self._places.close()
        elif monotonic() - self._interrupted_at < QUIT_CONFIRMATION_S:
            self._app.exit()
        else:
            self._interrupted_at = monotonic()
            self._dashboard.footer.show_notice("Ctrl+C again ends the console", QUIT_CONFIRMATION_S)

    def next_pane(self) -> None:
        """Moves the focus from the table to the details and the sidebar. Closes the filter, and completes a place."""
        if self._navigation.filter.is_open:
            self._navigation.filter.close()
        elif self._places.is_open:
            self._places.complete()
        else:
            self._dashboard.focus_next_pane()
