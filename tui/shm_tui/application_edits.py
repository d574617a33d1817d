"""An admin's edits of an application: its settings, the overrides of its metrics, merging and deleting it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from textual.app import App

from shm_client import ApplicationSettings, BulkChange, Client, ClientError, MetricKey, MetricOverride
from shm_tui.bulk_decisions import follow_change
from shm_tui.confirm_screen import YES, PreviewScreen
from shm_tui.form_screen import Field, FormScreen
from shm_tui.model.views.application import ApplicationView
from shm_tui.text.formatting import UNKNOWN, plural
from shm_tui.widgets.footer import NOTICE_S, Footer

NO_UNIT = "none"  # typed for a metric without a unit; an empty field leaves the unit to the key
AGGREGATES = "sum avg min max median"  # in the hint; the server refuses others
YES_WORDS, NO_WORDS = ("yes", "y", "true"), ("no", "n", "false", "")
SETTING_HINTS = {
    "name": "the name that is shown; the slug stays",
    "github_url": "https://github.com/OWNER/REPOSITORY, empty for none",
    "logo_url": "https://…, empty for none",
}


class ApplicationEdits:
    """Edits the row of the view of an application. `on_saved` is called after a change of its settings.

    `on_emptied` is called with its slug once it has been merged, and with the slug of the other one, or deleted (None).
    """

    def __init__(
        self,
        app: App[None],
        client: Client,
        footer: Footer,
        on_saved: Callable[[], None],
        on_emptied: Callable[[str, str | None], None],
    ) -> None:
        self._app, self._client, self._footer = app, client, footer
        self._on_saved, self._on_emptied = on_saved, on_emptied

    def edit(self, view: ApplicationView, row_key: str) -> None:
        """Opens the form of a row, or asks before the action of the row."""
        settings = view.settings
        kind, _, name = row_key.partition(" ")
        if settings is None:
            return
        if kind == "metric":
            metric = next((metric for metric in view.metrics if metric.key == name), None)
            if metric is not None:
                self._edit_metric(settings, metric)
        elif kind == "setting" and name in SETTING_HINTS:
            self._edit_setting(settings, name)
        elif row_key == "setting stars":
            self._app.run_worker(self._refresh_stars(settings), group="edits")
        elif row_key == "action merge":
            self._ask_target(settings)
        elif row_key == "action delete":
            self._ask_deletion(settings)

    def _edit_setting(self, settings: ApplicationSettings, name: str) -> None:
        field = Field(name, name.replace("_", " "), getattr(settings, name), SETTING_HINTS[name])

        async def save(values: dict[str, str]) -> str:
            if not changed_values([field], values):
                return ""
            return await self._save(self._client.edit_application(settings.slug, values))

        self._app.push_screen(FormScreen(f"{settings.name}: {field.label}", [field], save))

    def _edit_metric(self, settings: ApplicationSettings, metric: MetricKey) -> None:
        fields = metric_fields(settings, metric)

        async def save(values: dict[str, str]) -> str:
            try:
                override = override_changes(fields, values)
                changed = changed_values(fields, values)
                is_public = parse_yes("public", changed["public"]) if "public" in changed else None
            except ValueError as error:
                return str(error)
            if not changed:
                return ""
            return await self._save(self._client.edit_metric(settings.slug, metric.key, override, is_public=is_public))

        self._app.push_screen(FormScreen(f"{settings.name}: {metric.key}", fields, save))

    async def _save(self, request: Awaitable[ApplicationSettings]) -> str:
        try:
            saved = await request
        except ClientError as error:
            return str(error)
        self._notify(f"Saved {saved.name}")
        self._on_saved()
        return ""

    async def _refresh_stars(self, settings: ApplicationSettings) -> None:
        if not settings.github_url:
            self._notify("Stars need a GitHub URL.")
            return
        try:
            await self._client.refresh_stars(settings.slug)
        except ClientError as error:
            self._notify(str(error))
        else:
            self._on_saved()

    def _ask_target(self, settings: ApplicationSettings) -> None:
        """Asks for the other application, then with the number of instances."""
        targets: list[ApplicationSettings] = []

        async def find(values: dict[str, str]) -> str:
            try:
                targets.append(await self._client.application(values["into"]))
            except ClientError as error:
                return str(error)
            return ""

        async def preview() -> str | None:
            try:
                change = await self._client.merge_application(settings.slug, targets[-1].slug, is_preview=True)
            except ClientError as error:
                self._notify(str(error))
                return None
            return merge_question(settings, targets[-1], change.instances)

        def ask(is_found: bool | None) -> None:
            if is_found:
                self._confirm(
                    PreviewScreen(preview),
                    "Moved",
                    lambda: self._client.merge_application(settings.slug, targets[-1].slug, is_preview=False),
                    lambda: self._on_emptied(settings.slug, targets[-1].slug),
                )

        field = Field("into", "into (slug)", hint="the slug of the other application")
        self._app.push_screen(FormScreen(f"Merge {settings.name} into another application", [field], find), ask)

    def _ask_deletion(self, settings: ApplicationSettings) -> None:
        async def preview() -> str | None:
            try:
                change = await self._client.delete_application(settings.slug, is_preview=True)
            except ClientError as error:
                self._notify(str(error))
                return None
            return deletion_question(settings, change.instances)

        self._confirm(
            PreviewScreen(preview),
            "Deleted",
            lambda: self._client.delete_application(settings.slug, is_preview=False),
            lambda: self._on_emptied(settings.slug, None),
        )

    def _confirm(
        self,
        screen: PreviewScreen,
        done: str,
        request: Callable[[], Awaitable[BulkChange]],
        on_emptied: Callable[[], None],
    ) -> None:
        def carry_out(answer: str | None) -> None:
            if answer == YES:
                self._app.run_worker(self._carry_out(done, request, on_emptied), group="edits")

        self._app.push_screen(screen, carry_out)

    async def _carry_out(
        self, done: str, request: Callable[[], Awaitable[BulkChange]], on_emptied: Callable[[], None]
    ) -> None:
        server = self._client.server
        try:
            change = await request()
        except ClientError as error:
            self._notify(str(error))
            return
        if await follow_change(self._client, server, change, done, self._notify):
            on_emptied()
        else:
            self._on_saved()

    def _notify(self, notice: str) -> None:
        self._footer.show_notice(notice, NOTICE_S)


def merge_question(settings: ApplicationSettings, target: ApplicationSettings, count: int) -> str:
    """Names both applications and the number of instances that a merge moves."""
    return (
        f"Merge {settings.name} ({settings.slug}) into {target.name} ({target.slug})?\n\n"
        f"{plural(count, 'instance')} and their history move to {target.name}, and installs that register as "
        f"{settings.name} later belong to it too. This cannot be undone.\n\n"
        f"{YES} merge   n cancel"
    )


def deletion_question(settings: ApplicationSettings, count: int) -> str:
    """Names the application and the number of instances that its deletion erases."""
    return (
        f"Delete {settings.name} ({settings.slug})?\n\n"
        f"{plural(count, 'instance')} with their whole history, and the settings and charts of {settings.name}, are "
        f"deleted for good.\n\n"
        f"{YES} delete   n cancel"
    )


def metric_fields(settings: ApplicationSettings, metric: MetricKey) -> list[Field]:
    """The fields of a metric: the values that are set; the hints are what is in effect without them."""
    override = settings.overrides.get(metric.key, MetricOverride())
    unit = NO_UNIT if override.unit == "" else override.unit or ""
    is_public = metric.key in settings.public_metrics
    return [
        Field("label", "label", override.label or "", metric.label),
        Field("kind", "kind", override.kind or "", f"{metric.kind}   (business, system)"),
        Field(
            "aggregate",
            "aggregate",
            override.aggregate or "",
            f"{metric.aggregate or UNKNOWN}   ({AGGREGATES})",
        ),
        Field("unit", "unit", unit, f"{metric.unit or UNKNOWN}   ({NO_UNIT} for a metric without one)"),
        Field("description", "description", override.description or ""),
        Field("hidden", "hidden", "yes" if override.hidden else "no", "yes or no"),
        Field("public", "public", "yes" if is_public else "no", "yes or no: badges may show it to everybody"),
    ]


def changed_values(fields: Sequence[Field], values: Mapping[str, str]) -> dict[str, str]:
    """The values that differ from those with which the form opened.

    Only they are saved: a text may have been sanitized for the form, and another admin may have changed it meanwhile.
    """
    return {field.name: values[field.name] for field in fields if values[field.name] != field.value.strip()}


def override_changes(fields: Sequence[Field], values: Mapping[str, str]) -> dict[str, object]:
    """The values of an override that a form has changed; None removes one. Raises ValueError with a sentence."""
    changed = changed_values(fields, values)
    override: dict[str, object] = {
        name: changed[name] or None for name in ("label", "kind", "aggregate", "unit", "description") if name in changed
    }
    if changed.get("unit") == NO_UNIT:
        override["unit"] = ""
    if "hidden" in changed:
        override["hidden"] = parse_yes("hidden", changed["hidden"])
    return override


def parse_yes(name: str, text: str) -> bool:
    """A yes or a no. Raises ValueError."""
    if text.casefold() not in (*YES_WORDS, *NO_WORDS):
        raise ValueError(f"{name} is yes or no")
    return text.casefold() in YES_WORDS
