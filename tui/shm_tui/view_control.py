"""The open view: loads it for the place, draws it, and closes it."""

from collections.abc import Callable

from shm_client import Client, Instance
from shm_tui.model.place import Place
from shm_tui.model.view_session import ViewSession
from shm_tui.model.views.registry import make_view
from shm_tui.session_task import SessionTask
from shm_tui.widgets.dashboard import Dashboard


class ViewControl:
    """Shows the view of a place, but not the list of instances. `on_change` is called after each change of data."""

    def __init__(self, client: Client, dashboard: Dashboard, on_change: Callable[[], None]) -> None:
        self.session: ViewSession | None = None
        self._client = client
        self._dashboard = dashboard
        self._on_change = on_change
        self._task = SessionTask(dashboard.footer)

    def show(self, place: Place) -> None:
        """Shows the view of a place. A view that is open already gets its filter and its sort order."""
        if place.view == "instances":
            self.close()
            return
        before = self.session.place if self.session else None
        if self.session is not None and before is not None and before.loads_as(place):
            self.session.place = place
            if place.filter != before.filter:
                self.session.search()
            self._dashboard.view.draw()
            return
        view = make_view(place.view)
        if self.session is not None and self.session.place.app == place.app:
            view.kpis = self.session.view.kpis
        self.session = ViewSession(self._client, view, place, self._draw)
        self._dashboard.show_view(self.session)
        self._task.start(self.session)

    def close(self) -> None:
        """Shows the list of instances again."""
        if self.session is not None:
            self.session = None
            self._task.cancel()
            self._dashboard.show_list()

    async def stop(self) -> None:
        """Ends the requests."""
        await self._task.stop()

    def _draw(self) -> None:
        """Draws data at once: they arrive rarely, and a user may wait for them."""
        if self.session is not None and self._dashboard.view.is_attached:
            self._dashboard.view.draw()
        self._on_change()

    def draw_ages(self) -> None:
        """Draws the age of data that could not be loaded again."""
        if self.session is not None and self.session.error:
            self._dashboard.view.draw()

    @property
    def has_answer(self) -> bool:
        """Whether the open view has been loaded, or could not be; true where none is open."""
        return self.session is None or self.session.loaded_at is not None or bool(self.session.error)

    def reload(self) -> None:
        """Loads the view again."""
        if self.session is not None:
            self.session.reload()

    def set_paused(self, is_paused: bool) -> None:
        """Stops or resumes the loading of the open view."""
        if self.session is not None:
            self.session.set_paused(is_paused)

    @property
    def instance(self) -> Instance | None:
        """The instance that the open view shows; None if it shows none, or several."""
        return self.session.view.instance if self.session else None

    def next_dimension(self) -> Place | None:
        """The place with the values by another dimension; None if the view has none."""
        return self.session.view.next_dimension(self.session.place) if self.session else None

    def next_second(self) -> Place | None:
        """The place with another metric over the first one; None if the view has none."""
        return self.session.view.next_second(self.session.place) if self.session else None

    def step(self, columns: int, metrics: int) -> Place | None:
        """The place with another dimension or metric of the view; None if it has none."""
        return self.session.view.step(self.session.place, columns, metrics) if self.session else None
