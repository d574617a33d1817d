"""The chart beside the table on a wide screen: of the metric that the rows are sorted by."""

from shm_client import Client
from shm_tui.model.place import Place
from shm_tui.model.view_session import ViewSession
from shm_tui.model.views.registry import make_view
from shm_tui.session_task import SessionTask
from shm_tui.widgets.dashboard import Dashboard


class ChartControl:
    """Loads the chart while there is room for it, and nothing else."""

    def __init__(self, client: Client, dashboard: Dashboard) -> None:
        self._client = client
        self._dashboard = dashboard
        self._session: ViewSession | None = None
        self._task = SessionTask(dashboard.footer)

    def follow(self, place: Place, metric: str | None) -> None:
        """Shows the chart of a list's metric; none beside a view, of all applications, or where there is no room."""
        if place.view != "instances" or place.app is None or not self._dashboard.has_chart_room:
            self.close()
            return
        wanted = place.to_view("metric", *([metric] if metric is not None else []))
        if self._session is not None and self._session.place.loads_as(wanted):
            return
        self._session = ViewSession(self._client, make_view("metric"), wanted, self._draw)
        self._dashboard.show_chart(self._session)
        self._task.start(self._session)

    async def stop(self) -> None:
        """Ends the requests."""
        await self._task.stop()

    def reload(self) -> None:
        """Loads the chart again."""
        if self._session is not None:
            self._session.reload()

    def set_paused(self, is_paused: bool) -> None:
        """Stops or resumes the loading."""
        if self._session is not None:
            self._session.set_paused(is_paused)

    def close(self) -> None:
        """Shows no chart."""
        if self._session is not None:
            self._session = None
            self._task.cancel()
            self._dashboard.show_chart(None)

    def _draw(self) -> None:
        if self._session is not None and self._dashboard.chart.is_attached:
            self._dashboard.chart.draw()
