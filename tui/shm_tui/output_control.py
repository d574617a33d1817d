"""The ways out of the console: copies to the terminal's clipboard, exports, and the raw JSON in a pager.

A restricted session executes nothing and writes nothing on the host: it has a viewer of its own, and exports to the
clipboard.
"""

import os
from pathlib import Path

import msgspec
from textual.app import App, SuspendNotSupported

from shm_tui.clipboard import copy
from shm_tui.copy_screen import CopyChoice, CopyScreen
from shm_tui.model.empty_message import setup_lines
from shm_tui.model.export import ExportSource, export_row, instances_source, view_source
from shm_tui.model.place import render_place
from shm_tui.model.row import Row
from shm_tui.navigation import Navigation
from shm_tui.text.json_text import format_json
from shm_tui.text.table_formats import value_text
from shm_tui.widgets.dashboard import Dashboard
from shm_tui.widgets.footer import NOTICE_S

_encoder = msgspec.json.Encoder(decimal_format="number")


class OutputControl:
    """Copies, exports and shows the instance or view on the screen."""

    def __init__(self, app: App[None], dashboard: Dashboard, navigation: Navigation, *, is_restricted: bool) -> None:
        self._app, self._dashboard, self._navigation = app, dashboard, navigation
        self._is_restricted = is_restricted

    def copy(self, name: str, text: str) -> str:
        """Copies a text. Returns the notice for the user."""
        # The variables of a restricted session may be those of a server that was started inside of tmux.
        return copy(self._app._driver, name, text, {} if self._is_restricted else os.environ)

    def copy_first(self) -> None:
        """Copies the ID of the instance under the cursor; in the details, its metrics as JSON; in a view, the line."""
        dashboard = self._dashboard
        if dashboard.view.display:
            self._copy_with_notice("line", dashboard.view.line)
        elif dashboard.details.has_focus and dashboard.details.row is not None:
            self._copy_with_notice("metrics", format_json(dashboard.details.row.instance.metrics))
        elif dashboard.table.cursor_id is not None:
            self._copy_with_notice("ID", dashboard.table.cursor_id)
        elif self._navigation.overview.applications == []:
            self._copy_with_notice("lines", setup_lines(self._navigation.session.client.server))

    def ask_copy(self) -> None:
        """Asks what to copy: of an instance the ID, a cell, the row, the JSON; of a view the line, the JSON."""

        def copy_chosen(choice: CopyChoice | None) -> None:
            if choice is not None:
                self._copy_with_notice(choice.name, choice.text)

        self._app.push_screen(CopyScreen(self._choices()), copy_chosen)

    def export(self) -> None:
        """Asks for the format, and exports the rows of the list or the view."""
        from shm_tui.export_screen import ExportScreen

        def show_result(notice: str | None) -> None:
            if notice:
                self._notify(notice)

        source = self._source()
        if source is None or not source.names:
            self._notify("There is nothing to export yet.")
            return
        try:
            folder = None if self._is_restricted else Path.cwd()
        except OSError as error:  # it has been removed
            self._notify(f"There is no current directory to export to: {error.strerror}")
        else:
            self._app.push_screen(ExportScreen(source, folder, self.copy), show_result)

    def show_json(self) -> None:
        """Shows the JSON of the instance or the view in the pager, else in the console's own viewer."""
        title, value = self._document()
        if value is None:
            self._notify("No data has arrived yet.")
            return
        text = _json_text(value)
        if self._is_restricted or not self._page(text + "\n"):
            self._view(title, text)

    def _page(self, text: str) -> bool:
        """Shows a text in the user's pager. False if there is none, or it cannot be executed."""
        from shm_tui.pager import find_pager, run_pager

        command = find_pager(os.environ)
        if command is None:
            return False
        try:
            with self._app.suspend():
                error = run_pager(command, text)
        except SuspendNotSupported:
            return False
        self._app.refresh(layout=True)
        if error:
            self._notify(error)
        return not error

    def _view(self, title: str, text: str) -> None:
        from shm_tui.viewer_screen import ViewerScreen

        def copy_shown(shown: str | None) -> None:
            if shown is not None:
                self._copy_with_notice("JSON", shown)

        self._app.push_screen(ViewerScreen(title, text), copy_shown)

    def _source(self) -> ExportSource | None:
        session, view = self._navigation.session, self._navigation.view.session
        if view is not None:
            return view_source(view.view, view.place) if view.view.has_data else None
        return instances_source(session, self._dashboard.table.columns, self._navigation.filter.text)

    def _document(self) -> tuple[str, object]:
        """The title and the value of the JSON: of the open view, else of the instance of the details or the cursor."""
        view = self._navigation.view.session
        if view is not None:
            return render_place(view.place), view.view.document() if view.view.has_data else None
        row = self._dashboard.current_row(self._navigation.session)
        return ("", None) if row is None else (row.instance.instance_id, row.instance)

    def _choices(self) -> list[CopyChoice]:
        row = self._dashboard.current_row(self._navigation.session)
        if self._navigation.view.session is None and row is not None:
            return self._choices_of_row(row)
        line = [CopyChoice("r", "line", self._dashboard.view.line)] if self._dashboard.view.display else []
        _, value = self._document()
        json = [] if value is None else [CopyChoice("j", "JSON", _json_text(value))]
        return [*line, *json, CopyChoice("p", "place", render_place(self._navigation.place))]

    def _choices_of_row(self, row: Row) -> list[CopyChoice]:
        session, columns = self._navigation.session, self._dashboard.table.columns
        sorted_column = session.store.sort_column
        (cell,) = export_row([sorted_column], row, session.clock())
        cells = export_row(columns, row, session.clock())
        label = sorted_column.label or sorted_column.id
        return [
            CopyChoice("i", "ID", row.instance.instance_id),
            CopyChoice("c", label, value_text(cell)),
            CopyChoice("r", "row", "\t".join(value_text(value) for value in cells)),
            CopyChoice("j", "JSON", _json_text(row.instance)),
            CopyChoice("p", "place", render_place(self._navigation.place)),
        ]

    def _copy_with_notice(self, name: str, text: str) -> None:
        self._notify(self.copy(name, text))

    def _notify(self, notice: str) -> None:
        self._dashboard.footer.show_notice(notice, NOTICE_S)


def _json_text(value: object) -> str:
    """A value as indented JSON. Numbers keep their digits."""
    return msgspec.json.format(_encoder.encode(value), indent=2).decode()
