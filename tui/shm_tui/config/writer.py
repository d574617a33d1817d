"""Changes `console.toml` where the user asks for it: a saved view, or the theme. The rest stays, with its comments."""

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from shm_tui.config.file import MAX_CONFIG_BYTES, Config, parse_config
from shm_tui.config.storage import write_private
from shm_tui.errors import ConfigError
from shm_tui.model.column_choice import ColumnChoice
from shm_tui.model.place import ALL, Place
from shm_tui.model.saved_views import saved_form


def save_view(path: Path, place: Place, name: str) -> Config:
    """Saves a place under a name for its application. Returns the new contents of the file. Raises ConfigError."""

    def edit(document: MutableMapping[str, Any]) -> None:
        views = document.setdefault("views", tomlkit.table(is_super_table=True))
        views.setdefault(place.app or ALL, tomlkit.table())[name] = saved_form(place)

    return _edit(path, edit)


def save_columns(path: Path, app: str, choice: ColumnChoice) -> Config:
    """Keeps the columns of an application's list, `*` for that of all. Returns the new contents. Raises ConfigError."""

    def edit(document: MutableMapping[str, Any]) -> None:
        columns = document.setdefault("columns", tomlkit.table(is_super_table=True))
        columns.pop(app, None)
        if choice != ColumnChoice():
            columns[app] = tomlkit.item(msgspec.to_builtins(choice))
        elif not columns:
            del document["columns"]

    return _edit(path, edit)


def save_theme(path: Path, theme: str) -> Config:
    """Makes a theme that of each start. Returns the new contents of the file. Raises ConfigError."""

    def edit(document: MutableMapping[str, Any]) -> None:
        document["theme"] = theme

    return _edit(path, edit)


def _edit(path: Path, edit: Callable[[MutableMapping[str, Any]], None]) -> Config:
    """Applies a change to what the file has now, which somebody may have edited since the start."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    parse_config(path, content)  # an invalid file is not changed
    document = tomlkit.parse(content.decode("utf-8-sig"))
    edit(document)
    changed = tomlkit.dumps(document).encode()
    if len(changed) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} would have more than {MAX_CONFIG_BYTES // 1024} KiB")
    config = parse_config(path, changed)
    write_private(path, changed)
    return config
