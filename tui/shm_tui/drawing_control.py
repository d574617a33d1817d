"""Draws changes: a single one at once, and many within an interval together."""

import asyncio
from time import monotonic

from textual.app import App

from shm_tui.back_control import BackControl
from shm_tui.model.draw_pacing import DrawPacing
from shm_tui.navigation import Navigation
from shm_tui.settings_control import SettingsControl
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.delayed_call import call_after

AGE_INTERVAL_S = 1.0  # the smallest unit of an age


class DrawingControl:
    """Draws changes and ages. `data_shown` is set once the first data has been drawn, or the server has none."""

    def __init__(self, app: App[None], dashboard: Dashboard) -> None:
        self._app, self._dashboard = app, dashboard
        self.data_shown = asyncio.Event()
        self.has_changes = True  # since the last drawing; the next one is planned
        self._pacing = DrawPacing()
        self._is_started = False

    def bind(self, navigation: Navigation, back_control: BackControl, settings: SettingsControl) -> None:
        """Sets what is drawn, and who asks for another token when the server refuses the present one."""
        self._navigation, self._back_control, self._settings = navigation, back_control, settings

    def start(self) -> None:
        """Draws from now on: the widgets are mounted."""
        self._is_started = True
        self._plan()
        self._app.set_interval(AGE_INTERVAL_S, self._draw_ages)

    def mark_changed(self) -> None:
        """Draws the change: at once, unless something has just been drawn."""
        if not self.has_changes:
            self.has_changes = True
            self._plan()

    def mark_input(self) -> None:
        """A key was pressed, or the mouse was used: the answer comes before other changes."""
        self._pacing.mark_input(monotonic())

    def draw(self) -> None:
        """Draws the changes now."""
        if not self.has_changes:
            return
        self._pacing.mark_drawn(monotonic())
        if self._is_covered:
            self._plan()
            return
        self.has_changes = False
        navigation = self._navigation
        if not self._back_control.is_prompt_open:
            self._settings.ask_after_refusal(navigation.session.connection)
        navigation.choose_application()
        if navigation.awaits_application:
            self._dashboard.draw_waiting(navigation.session)
            return
        navigation.filter.follow_labels()
        navigation.request_figures()
        self._dashboard.draw_changes(navigation.session, navigation.filter.text)
        is_chosen = navigation.is_application_chosen or not navigation.overview.applications
        if self._dashboard.has_data and is_chosen and navigation.view.has_answer:
            self._pacing.is_started = True
            self.data_shown.set()

    def _plan(self) -> None:
        if self._is_started:
            call_after(self._app, max(0.0, self._pacing.due_at() - monotonic()), self._draw_if_due)

    def _draw_if_due(self) -> None:
        """Draws the changes, unless a key has been pressed since they were planned."""
        if self.has_changes and monotonic() < self._pacing.due_at():
            self._plan()
        else:
            self.draw()

    def _draw_ages(self) -> None:
        if self._is_covered:
            return
        if self._navigation.awaits_application:
            self.mark_changed()  # the connection may have been lost meanwhile
        else:
            self._dashboard.draw_ages(self._navigation.session, self._navigation.filter.text)
            self._navigation.view.draw_ages()

    @property
    def _is_covered(self) -> bool:
        """Whether another screen is above the widgets, or they are gone already: timers end a little later."""
        return not all(map(self._app.query, ("StatusBar", "Footer")))  # the first and the last of them
