"""The actions on rows: opens what is under the cursor, marks instances, and decides on them."""

from textual.app import App

from shm_client import Decision
from shm_tui.bulk_decisions import MAX_MARKED, matching_choice
from shm_tui.decisions import Decisions
from shm_tui.model.place import Place
from shm_tui.navigation import Navigation
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.footer import NOTICE_S


class RowActions:
    """Acts on the row under the cursor, on the marked instances, or on all that match the filter."""

    def __init__(self, app: App[None], dashboard: Dashboard, navigation: Navigation, decisions: Decisions) -> None:
        self._app, self._dashboard, self._navigation, self._decisions = app, dashboard, navigation, decisions

    def open(self) -> None:
        """Opens an instance's details, from these the whole instance, another place, or the form of a setting."""
        dashboard, place = self._dashboard, self._navigation.place
        if dashboard.sidebar.has_focus:
            dashboard.focus_main()
        elif dashboard.table.has_focus:
            dashboard.open_details(self._navigation.session)
        elif dashboard.view.has_focus and (target := dashboard.view.target) is not None:
            self._navigation.go(target)
        elif dashboard.details.has_focus and dashboard.details.instance_id is not None:
            self._navigation.go(place.to_view("instance", dashboard.details.instance_id))
        elif place.view == "application" and self._decisions.is_admin:
            self._edit_application()

    def _edit_application(self) -> None:
        from shm_tui.application_edits import ApplicationEdits
        from shm_tui.model.views.application import ApplicationView

        view_control, client = self._navigation.view, self._navigation.session.client
        session = view_control.session
        if session is not None and isinstance(session.view, ApplicationView):
            edits = ApplicationEdits(
                *(self._app, client, self._dashboard.footer, view_control.reload, self._leave_application)
            )
            edits.edit(session.view, self._dashboard.view.row_key)

    def _leave_application(self, slug: str, target: str | None) -> None:
        """Shows where the instances are now: in the application into which this one was merged, else the fleet."""
        place = self._navigation.place
        if place.app == slug:  # else the user has gone elsewhere meanwhile
            self._navigation.go(place.with_app(target) if target is not None else Place(view="fleet"))

    def decide(self, decision: Decision) -> None:
        """Asks before it approves, revokes or erases: the instance of the details or the view, the marked ones, or the
        instance under the cursor or all that match the filter."""
        session, is_list = self._navigation.session, self._navigation.place.view == "instances"
        marked, instance = session.store.marked, self._navigation.view.instance
        if is_list and marked and not self._dashboard.details.display:
            self._decisions.ask_marked(self._app, decision, [*marked.values()], self.unmark)
            return
        if is_list and (row := self._dashboard.current_row(session)) is not None:
            instance = row.instance
        if instance is not None:
            matching = matching_choice(session, self._navigation.filter.text) if is_list else None
            self._decisions.ask(self._app, decision, instance, session.clock(), matching)

    def mark(self) -> None:
        """Marks the instance under the cursor, or removes its mark."""
        if self._navigation.place.view == "instances" and self._dashboard.table.has_focus:
            if not self._dashboard.table.toggle_mark(MAX_MARKED):
                notice = f"At most {MAX_MARKED:,} can be marked; a filter has no limit"
                self._dashboard.footer.show_notice(notice, NOTICE_S)
            self._draw_marks()

    def unmark(self) -> None:
        """Removes all marks."""
        self._navigation.session.store.marked.clear()
        self._dashboard.table.refresh()
        self._draw_marks()

    def _draw_marks(self) -> None:
        """Draws the number of marked instances."""
        self._dashboard.draw_panels(self._navigation.session, self._navigation.filter.text)
