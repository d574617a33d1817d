"""The left column: the applications with their numbers of instances."""

from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

from shm_client import Application, Stats
from shm_tui.text.cells import fit
from shm_tui.text.formatting import UNKNOWN
from shm_tui.widgets.messages import ApplicationChosen


class Sidebar(Widget, can_focus=True):
    """One line for all applications and one for each application, the largest first. The selected one is marked."""

    COMPONENT_CLASSES = {"sidebar--title", "sidebar--selected", "sidebar--name", "sidebar--count"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._applications: list[Application] = []
        self._total: int | None = None
        self._selected: str | None = None

    def show(self, applications: list[Application] | None, stats: Stats | None, selected: str | None) -> None:
        """Draws the applications; `selected` is a slug, or None for all."""
        content = (applications or [], stats.total_instances if stats else None, selected)
        if content != (self._applications, self._total, self._selected):
            self._applications, self._total, self._selected = content
            self.refresh()

    def slugs(self) -> list[str | None]:
        """None for all, then each application's slug, in the order of the list."""
        return [None, *(application.slug for application in self._sorted_applications())]

    def move_cursor(self, lines: int) -> None:
        """Chooses an application further down, up to the ends of the list."""
        slugs = self.slugs()
        index = slugs.index(self._selected) if self._selected in slugs else 0
        self._choose(slugs[max(0, min(index + lines, len(slugs) - 1))])

    def move_page(self, direction: int) -> None:
        """Chooses an application a page further."""
        self.move_cursor(direction * max(1, self.content_size.height - 1))

    def move_to_first(self) -> None:
        """Chooses all applications, which are the first entry."""
        self._choose(self.slugs()[0])

    def move_to_last(self) -> None:
        """Chooses the last application."""
        self._choose(self.slugs()[-1])

    def scroll_columns(self, count: int) -> None:
        """There is one column."""

    def _choose(self, slug: str | None) -> None:
        self._selected = slug  # at once: the next key counts from here
        self.refresh()
        self.post_message(ApplicationChosen(slug))

    def on_click(self, event: events.Click) -> None:
        """Chooses the application under the mouse."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y < 1:  # the padding and the title
            return
        index = offset.y - 1 + self._first_index()
        if index < len(self.slugs()):
            self.post_message(ApplicationChosen(self.slugs()[index]))

    def render(self) -> Text:
        """A title, and a line for each application."""
        lines = [Text(" APPLICATIONS", self._style("title"))]
        entries: list[tuple[str, int | None, str | None]] = [("All", self._total, None)]
        entries += [(app.name, app.instances.total, app.slug) for app in self._sorted_applications()]
        first = self._first_index()
        for name, count, slug in entries[first : first + self._height]:
            is_selected = slug == self._selected
            number = UNKNOWN if count is None else f"{count:,}"
            name_width = max(1, self.size.width - 3 - len(number))
            lines.append(
                Text.assemble(
                    ("▌" if is_selected else " ", self._style("selected")),
                    (fit(name, name_width - 1) + " ", self._style("selected" if is_selected else "name")),
                    (f" {number} ", self._style("count")),
                    no_wrap=True,
                )
            )
        return Text("\n").join(lines)

    def _sorted_applications(self) -> list[Application]:
        return sorted(self._applications, key=lambda app: (-app.instances.total, app.name))

    @property
    def _height(self) -> int:
        """Lines below the title."""
        return max(1, self.size.height - 1)

    def _first_index(self) -> int:
        """The first entry that is drawn, so that the selected one is visible."""
        slugs = self.slugs()
        index = slugs.index(self._selected) if self._selected in slugs else 0
        return max(0, index - self._height + 1)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"sidebar--{name}")
