"""Reads `console.toml` of the user's configuration directory. Every mistake in it is one sentence with file and key.

The file is optional. It has no token: a context names the file or the command that has it.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import platformdirs

from shm_tui.access import resolve_server_url
from shm_tui.errors import AddressError, ConfigError
from shm_tui.model.column_choice import ColumnChoice, check_choice
from shm_tui.model.place import ALL, PlaceError
from shm_tui.model.saved_views import MAX_VIEWS, SavedViews, check_view, check_view_name
from shm_tui.text.sanitizing import sanitize
from shm_tui.theme_names import is_theme

CONFIG_FILE = "console.toml"
MAX_CONFIG_BYTES = 256 * 1024  # of a file that people write
MAX_CONTEXTS = 100
CONTEXT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")  # a part of a place: no space and no slash

T = TypeVar("T")


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server, and where its token is: in a file, or in the output of a command; else it is asked for."""

    url: str
    token_file: str = ""
    token_command: tuple[str, ...] = ()


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's members before their contents are checked."""

    default_context: str = ""
    theme: str = ""
    contexts: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    views: dict[str, Any] = {}
    columns: dict[str, Any] = {}


@dataclass(frozen=True)
class Config:
    """The contents of the file, which may not exist. `keys`: the new keys of actions, by the action's name."""

    path: Path
    default_context: str = ""
    theme: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    views: SavedViews = field(default_factory=SavedViews)
    columns: Mapping[str, ColumnChoice] = field(default_factory=dict)  # by application, `*`: the list of all


EMPTY = Config(Path(CONFIG_FILE))  # of a console that reads no file


def config_path() -> Path:
    """The file's path: `$XDG_CONFIG_HOME/shm/console.toml`, by default in `~/.config`. Raises ConfigError."""
    try:
        return platformdirs.user_config_path("shm") / CONFIG_FILE
    except RuntimeError:  # a container's user without a home directory
        raise ConfigError(
            "the user has no home directory: set XDG_CONFIG_HOME to the directory of shm/console.toml"
        ) from None


def load_config(path: Path) -> Config:
    """Reads and checks the file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Config(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return parse_config(path, content)


def parse_config(path: Path, content: bytes) -> Config:
    """Checks the contents of the file. Raises ConfigError."""
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} has more than {MAX_CONFIG_BYTES // 1024} KiB")
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {sanitize(str(error), 200)}") from None
    try:
        return _check(path, document)
    except _KeyError as error:
        raise ConfigError(f"{path}: {error}") from None


class _KeyError(Exception):
    """A mistake in one key of the file."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{sanitize(key, 100)}: {sanitize(reason, 300)}")


def _check(path: Path, document: dict[str, Any]) -> Config:
    tables = _convert("", document, _Tables)
    if len(tables.contexts) > MAX_CONTEXTS:
        raise _KeyError("contexts", f"at most {MAX_CONTEXTS} are possible")
    contexts = {name: _check_context(name, table) for name, table in tables.contexts.items()}
    if tables.default_context and tables.default_context not in contexts:
        raise _KeyError("default_context", f"there is no context “{tables.default_context}”{_known(contexts)}")
    if tables.theme and not is_theme(tables.theme):
        raise _KeyError("theme", f"there is no theme “{tables.theme}”; `T` in the console lists them")
    keys = {}
    if tables.keys:
        from shm_tui.config.keys import KeysError, check_keys  # loads a part of Textual

        listed = {name: _keys_of(name, value) for name, value in tables.keys.items()}
        try:
            keys = check_keys(listed)
        except KeysError as error:
            raise _KeyError(f"keys.{error.action}", str(error)) from None
    return Config(
        path,
        tables.default_context,
        tables.theme,
        contexts,
        keys,
        _check_views(tables.views),
        _check_columns(tables.columns),
    )


def _check_context(name: str, table: Any) -> Context:
    key = f"contexts.{name}"
    if not CONTEXT_NAME.fullmatch(name):
        raise _KeyError(key, "a name has letters, digits, dots, hyphens and underscores, at most 40")
    context = _convert(key, table, Context)
    if not context.url.strip():
        raise _KeyError(f"{key}.url", "the server's address is empty")
    try:
        url = resolve_server_url(context.url)
    except AddressError as error:
        raise _KeyError(f"{key}.url", str(error)) from None
    if context.token_file and context.token_command:
        raise _KeyError(key, "token_file and token_command exclude each other")
    return Context(url, context.token_file, context.token_command)


def _keys_of(name: str, value: Any) -> list[str]:
    """One key, or a list of keys."""
    return [value] if isinstance(value, str) else _convert(f"keys.{name}", value, list[str])


def _check_views(tables: dict[str, Any]) -> SavedViews:
    """The saved views of each application; `*` are those of all applications."""
    views: dict[str, dict[str, str]] = {}
    for slug, table in tables.items():
        views[slug] = _convert(f"views.{slug}", table, dict[str, str])
        if len(views[slug]) > MAX_VIEWS:
            raise _KeyError(f"views.{slug}", f"at most {MAX_VIEWS} are possible")
        for name, place in views[slug].items():
            try:
                check_view_name(name)
                check_view(None if slug == ALL else slug, place)
            except PlaceError as error:
                raise _KeyError(f"views.{slug}.{name}", str(error)) from None
    return SavedViews(views)


def _check_columns(tables: dict[str, Any]) -> dict[str, ColumnChoice]:
    """The choices of columns of each application."""
    choices = {}
    for slug, table in tables.items():
        choices[slug] = _convert(f"columns.{slug}", table, ColumnChoice)
        try:
            check_choice(choices[slug])
        except ValueError as error:
            raise _KeyError(f"columns.{slug}", str(error)) from None
    return choices


def _convert(key: str, value: Any, kind: type[T]) -> T:
    """A value of a type. The error names the key below `key`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, below = str(error).partition(" - at `$")
        parts = [part for part in (key, below.rstrip("`").removeprefix(".")) if part]
        raise _KeyError(".".join(parts).replace(".[", "[") or "the file", reason[:1].lower() + reason[1:]) from None


def _known(contexts: Mapping[str, Context]) -> str:
    return f": {', '.join(contexts)}" if contexts else ""
