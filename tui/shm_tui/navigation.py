"""The place and the session that shows it. Every way to another place goes through `Navigation.go`."""

from collections.abc import Callable
from dataclasses import replace

from shm_client import Client, Kpis
from shm_tui.chart_control import ChartControl
from shm_tui.filter_control import FilterControl
from shm_tui.model.first_application import FirstApplication
from shm_tui.model.live_session import LiveSession, Overview
from shm_tui.model.place import DEFAULT_APP, NEEDS_APPLICATION, Place, PlaceHistory, missing_application, missing_past
from shm_tui.model.tile_session import TileRequest, TileSession
from shm_tui.session_task import SessionTask
from shm_tui.sort_control import SortControl
from shm_tui.view_control import ViewControl
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.footer import NOTICE_S


class Navigation:
    """Owns the place and the session. `on_change` is called after every change of what is shown.

    `context` is the name of the connected server's context; `switch` goes to a place of another one.
    """

    def __init__(
        self,
        client: Client,
        dashboard: Dashboard,
        place: Place,
        on_change: Callable[[], None],
        max_rows: int,
        *,
        context: str = "",
        switch: Callable[[Place], None] | None = None,
    ) -> None:
        self.context = context
        self.is_application_chosen = place.app != DEFAULT_APP
        self.place = place = replace(place, app=place.app or None)
        self.overview = Overview()
        self.session = LiveSession(client, place.app, on_change, self.overview, max_rows=max_rows)
        self.filter = FilterControl(client, dashboard, self)
        self.sorting = SortControl(dashboard.table, lambda: self.session, self._keep_sort)
        self.view = ViewControl(client, dashboard, on_change)
        self.chart = ChartControl(client, dashboard)
        self.tiles = TileSession(client, self._tile_keys, on_change)
        self._was_lost = False  # the connection, when the figures were requested last
        self._kpis: Kpis | None = None  # the last ones of the feed: they change with the instances
        self._client = client
        self._dashboard = dashboard
        self._on_change = on_change
        self._max_rows = max_rows
        self._switch = switch
        self._history = PlaceHistory()
        self._task = SessionTask(dashboard.footer)
        self._tiles_task = SessionTask(dashboard.footer)
        self._is_shown = False  # the widgets may not be mounted before

    def start(self) -> None:
        """Starts the session of the first place. Without an application, one is chosen before rows are requested."""
        self._tiles_task.start(self.tiles)
        choice = FirstApplication(self._client, self.overview, self._start_first_session)
        self._task.start(self.session if self.is_application_chosen else choice)

    def show(self) -> None:
        """Shows the first place in the widgets."""
        self._is_shown = True
        self._dashboard.show_context(self.context)
        self._apply()

    def _start_first_session(self) -> None:
        """Starts the session of the largest application; of all, if none is known or the user keeps what is shown."""
        before = self.session
        self.choose_application()
        if self.session is before:
            self._task.start(self.session)

    async def stop(self) -> None:
        """Ends the session, and with it the connection to the server."""
        await self._task.stop()
        await self._tiles_task.stop()
        await self.chart.stop()
        await self.view.stop()

    def set_paused(self, is_paused: bool) -> None:
        """Holds what is shown, or shows what arrived meanwhile. Another application is shown as it is now."""
        self.session.set_paused(is_paused)
        self.tiles.set_paused(is_paused)
        self.view.set_paused(is_paused)
        self.chart.set_paused(is_paused)

    def go(self, place: Place, *, is_step: bool = True) -> None:
        """Shows a place. A step can be gone back from."""
        if place.context not in ("", self.context) and self._switch is not None:
            self._switch(place)
            return
        place = replace(place, context="")
        if reason := missing_application(place) or missing_past(place):
            self._dashboard.footer.show_notice(reason, NOTICE_S)
            return
        before, self.place = self.place, place
        self.is_application_chosen = True
        if place.subject != before.subject:
            if is_step:
                self._history.leave(replace(before, context=self.context))
            if self.filter.is_open:
                self.filter.close()
            self._dashboard.show_details(False)
        self._dashboard.place = place
        if place.app != self.session.slug:
            self._make_session()
            self._task.start(self.session)
        self._apply()
        self._dashboard.draw_panels(self.session, self.filter.text)  # at once, not at the next interval

    def restart(self, place: Place, context: str) -> None:
        """Shows a place of the server to which the client has just been connected."""
        if context != self.context:
            self._history.leave(replace(self.place, context=self.context))
        self.is_application_chosen = place.app != DEFAULT_APP
        self.context, self.place = context, replace(place, context="", app=place.app or None)
        self.overview = Overview()
        self.tiles = TileSession(self._client, self._tile_keys, self._on_change)
        if self.filter.is_open:
            self.filter.close()
        self._dashboard.show_details(False)
        self.view.close()
        self.chart.close()
        self._make_session()
        self.start()
        self.show()

    def _make_session(self) -> None:
        """Makes the session of the place's application."""
        if self.session.store.is_paused:
            self.set_paused(False)
        self.session = LiveSession(
            self._client, self.place.app, self._on_change, self.overview, max_rows=self._max_rows
        )
        self._on_change()

    def back(self) -> None:
        """Goes back to the previous place, with its filter and its sort order."""
        place = self._history.back()
        if place is not None:
            self.go(place, is_step=False)

    def place_at_cursor(self) -> Place:
        """The place; in the fleet, that of the application under the cursor."""
        return (self._dashboard.view.target if self.place.view == "fleet" else None) or self.place

    def show_chart(self) -> None:
        """Shows the chart of the metric that the list is sorted by; in a view, of the one under the cursor."""
        target = self._dashboard.view.target if self.place.view != "instances" else None
        if target is not None and target.view == "metric":
            self.go(target)
            return
        key = self.place.argument(1) if self.place.view == "breakdown" else None
        if self.place.view == "instances":
            key = self.session.store.sort_column.metric
        self.go(self.place_at_cursor().to_view("metric", *([key] if key else [])))

    def choose_application(self) -> None:
        """Without an application, shows the largest one: metrics of several applications rarely fit one table.

        A user who has opened an instance or a prompt before keeps what is on the screen.
        """
        applications = self.overview.applications
        if self.filter.is_open or self._dashboard.details.display:
            self.is_application_chosen = True
        if not self.is_application_chosen and applications:
            place = replace(self.place, app=max(applications, key=lambda app: app.instances.total).slug)
            if self._is_shown:
                self.go(place, is_step=False)
                return
            self.is_application_chosen, self.place = True, place
            self._make_session()
            self._task.start(self.session)

    @property
    def first_place(self) -> Place:
        """The place from which a new connection starts: without an application, unless one is chosen."""
        return self.place if self.is_application_chosen else replace(self.place, app=DEFAULT_APP)

    @property
    def awaits_application(self) -> bool:
        """Whether the first application is not known yet. Rows of all of them would be replaced in a moment."""
        has_answer = self.overview.applications is not None or self.session.connection.is_lost
        return not self.is_application_chosen and not has_answer and self.place.view == "instances"

    def keep_filter(self, text: str) -> None:
        """Makes the filter in effect a part of the place."""
        if text != self.place.filter:
            self.place = replace(self.place, filter=text)
            self.view.show(self.place)

    def request_figures(self) -> None:
        """Requests what tiles and chart of the place show. Call it after a change of the place, its filter or rows."""
        if self.session.store.has_sort_order:
            self.chart.follow(self.place, self.session.store.sort_column.metric)
        place, server_filter = self.place, self.session.store.filter.server_filter
        conditions = server_filter.conditions if server_filter.is_whole and self.filter.text else ()
        was_lost, self._was_lost = self._was_lost, self.session.connection.is_lost
        if was_lost and not self._was_lost:
            for part in (self.tiles, self.view, self.chart):
                part.reload()
        self.tiles.request(TileRequest(self.session.slug, place.at, conditions, place.range))
        if self.session.kpis is not self._kpis:
            self._kpis = self.session.kpis
            self.tiles.mark_outdated()
        self._dashboard.tile_data = self.tiles.data

    def _tile_keys(self) -> list[str]:
        kpis = self.session.kpis
        return [] if kpis is None else [kpi.key for kpi in kpis.kpis] + [flag.key for flag in kpis.flags]

    def _keep_sort(self, text: str) -> None:
        self.place = replace(self.place, sort=text)

    def _apply(self) -> None:
        """Filter, sort order and view of the place. A view of one application waits until one is chosen."""
        self._dashboard.place = self.place
        self.filter.apply(self.place.filter)
        if self.place.view == "instances":
            self.sorting.apply(self.place.sort)
        if self.is_application_chosen or self.place.view not in NEEDS_APPLICATION:
            self.view.show(self.place)
        self.request_figures()
