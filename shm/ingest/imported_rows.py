"""Valid rows that an import stores, of a database of the original or of a complete export of SHM."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from shm.core.json_types import MAX_URL_LENGTH, WEB_ADDRESS
from shm.core.metric_keys import MetricOverride
from shm.core.settings import Settings
from shm.ingest.export_records import Absence, SeenVersion
from shm.ingest.flattening import check_text
from shm.ingest.instance_rows import InstanceRow


class SkippedRow(Exception):
    """A row is not imported. The text says what was skipped, in the plural."""


class ImportedApplication(msgspec.Struct, kw_only=True):
    """An application. `old_slug`: that of the original, if it differs and a path can contain it.

    Only applications of SHM have `overrides` and `public_metrics`.
    """

    id: str | None
    slug: str
    old_slug: str | None
    name: str
    github_url: str | None
    logo_url: str | None
    stars: int
    stars_updated_at: datetime | None
    created_at: datetime
    overrides: Mapping[str, MetricOverride] | None = None
    public_metrics: Sequence[str] | None = None


class ImportedInstance(InstanceRow, kw_only=True):
    """An instance. Only those of SHM have the fields from `registered_at` on; others have a `first_seen_at`."""

    status: str
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    registered_at: datetime | None = None
    revoked_at: datetime | None = None
    erased_at: datetime | None = None
    needs_approval: bool = False
    previous_app_slug: str | None = None
    hints: msgspec.Raw | None = None
    absences: Sequence[Absence] = ()
    versions: Sequence[SeenVersion] = ()


def parse_text(text: str, settings: Settings) -> str:
    """A text of an install or an application without the space around it. Raises BadRequest."""
    check_text(text, "a text", settings.max_name)
    return text.strip()


def parse_url(text: str | None) -> str | None:
    """An address on the web; None for anything else."""
    is_url = text is not None and len(text) <= MAX_URL_LENGTH and re.fullmatch(WEB_ADDRESS, text)
    return text if is_url else None
