"""Parses rows of a database of the original server, as strictly as requests of installs. Pure.

A row may come from a hostile server or have been changed by hand, so whatever SHM would not accept from an install or
an admin is skipped, with a reason for the summary.
"""

import re
from collections.abc import Callable

from shm.core import slugs
from shm.core.errors import BadRequest
from shm.core.releases import version_rank
from shm.core.settings import Settings
from shm.db.original_database import OriginalApplication, OriginalInstance, OriginalSnapshot
from shm.ingest.flattening import flatten
from shm.ingest.imported_rows import ImportedApplication, ImportedInstance, SkippedRow, parse_text, parse_url
from shm.ingest.payloads import Snapshot, decode_metrics
from shm.ingest.signatures import UUID, parse_public_key

MAX_STARS = 2**31 - 1  # that the database can store
OLD_SLUG = re.compile(r"[a-z0-9-]{1,100}")  # that a path can contain


def parse_application(row: OriginalApplication, settings: Settings) -> ImportedApplication:
    """Raises SkippedRow. An address that is no URL of the web is left out."""
    try:
        name = parse_text(row.name or "", settings)
    except BadRequest:
        name = ""
    if not name:
        raise SkippedRow("applications with an invalid name")
    slug = slugs.make_slug(name)
    return ImportedApplication(
        id=row.id.lower() if row.id is not None and UUID.fullmatch(row.id.lower()) else None,
        slug=slug,
        old_slug=row.slug if row.slug != slug and OLD_SLUG.fullmatch(row.slug) else None,
        name=name,
        github_url=parse_url(row.github_url),
        logo_url=parse_url(row.logo_url),
        stars=min(max(0, row.stars), MAX_STARS),
        stars_updated_at=row.stars_updated_at,
        created_at=row.created_at,
    )


def parse_instance(row: OriginalInstance, settings: Settings) -> ImportedInstance:
    """Raises SkippedRow."""
    if row.status == "pending":
        raise SkippedRow("installs that never proved their key")
    if row.status not in ("active", "revoked"):
        raise SkippedRow("installs with an unknown status")
    if not (row.app_name or "").strip():
        raise SkippedRow("installs without an application")
    try:
        digits = bytes.fromhex(row.public_key or "").decode()  # the column has the digits as text
        key = parse_public_key("public_key", digits)
        texts = (row.app_name or "", row.app_version, row.environment, row.deployment_mode, row.os_arch)
        app_name, app_version, environment, deployment_mode, os_arch = (parse_text(text, settings) for text in texts)
    except (BadRequest, ValueError):
        raise SkippedRow("installs with an invalid key or text") from None
    return ImportedInstance(
        instance_id=row.instance_id,
        public_key=key,
        app_slug=slugs.make_slug(app_name),
        app_name=app_name,
        app_version=app_version,
        version_rank=version_rank(app_version),
        environment=environment,
        deployment_mode=deployment_mode,
        os_arch=os_arch,
        status=row.status,
        first_seen_at=row.created_at,
        last_seen_at=max(row.created_at, row.last_seen_at),
    )


def parse_snapshot(row: OriginalSnapshot, find_key: Callable[[str], bytes | None], settings: Settings) -> Snapshot:
    """Raises SkippedRow. `find_key`: the key of an instance whose snapshots are imported, by ID."""
    if row.is_expired:
        raise SkippedRow("snapshots older than SHM_RETENTION")
    if row.snapshot_at is None:
        raise SkippedRow("snapshots of the future or of no time")
    key = find_key(row.instance_id)
    if key is None:
        raise SkippedRow("snapshots of installs that are revoked or skipped")
    if row.data is None:
        raise SkippedRow("snapshots that are refused (body_too_large)")
    try:
        flattened = flatten(decode_metrics(row.data.encode()), settings)
    except BadRequest as refusal:
        raise SkippedRow(f"snapshots that are refused ({refusal.code})") from None
    return Snapshot(
        instance_id=row.instance_id,
        public_key=key,
        snapshot_at=row.snapshot_at,
        flattened=flattened,
        app_version=None,
        sequence=None,
    )
