"""The end user's stored choice, in one small file for each application of a data directory.

`python -m shm_sdk off` writes it, and each report reads it. A file that cannot be read counts as `off`.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from shm_sdk.configuration import Configuration
from shm_sdk.files import open_regular_file, write_atomically
from shm_sdk.names import directory_name

FILE_SUFFIX = "_telemetry_choice.json"
MAX_FILE_BYTES = 256 * 1024  # thousands of hashes
MAX_ERASED_IDS = 16
FILE_MODE = 0o644  # holds no secret, and root's choice (`sudo ... on`) must be readable for the application's user


class Choice(NamedTuple):
    """The decision of the user. `telemetry` is `on`, `off`, or empty before a decision."""

    telemetry: str = ""
    decided_at: str = ""  # RFC 3339
    metric_hashes: tuple[str, ...] | None = None  # of the names that `on` covers; None: those of the next report
    declined_hashes: tuple[str, ...] = ()
    notice_shown_at: str = ""
    erased_ids: tuple[str, ...] = ()  # identities that must not be used again
    error: str = ""  # why the file cannot be used, which counts as `off`; is not stored

    @property
    def is_off(self) -> bool:
        """Whether the user has refused."""
        return self.telemetry == "off"

    @property
    def is_on(self) -> bool:
        """Whether the user has agreed."""
        return self.telemetry == "on"

    def decided(self, telemetry: str, metric_hashes: Iterable[str] | None = None) -> "Choice":
        """This choice with a new decision."""
        hashes = None if metric_hashes is None else tuple(sorted(metric_hashes))
        return self._replace(
            telemetry=telemetry, decided_at=timestamp(), metric_hashes=hashes, declined_hashes=(), error=""
        )

    def erased(self, instance_id: str) -> "Choice":
        """This choice after an erasure of that install."""
        return self._replace(erased_ids=(*self.erased_ids, instance_id)[-MAX_ERASED_IDS:])


STORED = tuple(name for name in Choice._fields if name != "error")


def choice_path(configuration: Configuration) -> Path:
    """The file of this application's choice."""
    return configuration.data_dir / f"{directory_name(configuration.app_name)}{FILE_SUFFIX}"


def read_choice(configuration: Configuration) -> Choice:
    """The stored choice, an empty one without a file. A damaged file is a refusal."""
    path = choice_path(configuration)
    try:
        with open_regular_file(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Choice()
    except OSError as error:
        return Choice("off", error=f"{path} cannot be read ({error.strerror}), which counts as a refusal")
    return _parse(content) or Choice("off", error=f"{path} is damaged, which counts as a refusal")


def write_choice(configuration: Configuration, choice: Choice) -> None:
    """Stores a choice. Raises OSError where nothing can be written."""
    path = choice_path(configuration)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {name: value for name in STORED if (value := getattr(choice, name))}
    write_atomically(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n", path, mode=FILE_MODE)


def timestamp() -> str:
    """The current time."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _parse(content: bytes) -> Choice | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("telemetry", "") not in ("", "on", "off"):
        return None
    members: dict[str, object] = {}
    for name, value in document.items():
        if name in ("telemetry", "decided_at", "notice_shown_at") and isinstance(value, str):
            members[name] = value
        elif name in ("metric_hashes", "declined_hashes", "erased_ids") and _is_list_of_texts(value):
            members[name] = tuple(value)
        elif name in STORED:
            return None
    return Choice(**members)  # type: ignore[arg-type]


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
