"""The fields of an instance in lists, feed and exports. Sort orders, conditions and CSV columns follow from them."""

from typing import Annotated, Literal, get_type_hints

import msgspec

from shm.core.json_types import Metrics, Timestamp

Status = Literal["pending", "active", "revoked"]


VersionRank = Annotated[
    str,
    msgspec.Meta(
        description="The sort key of the version, compared by code points; equal for all spellings of one release."
    ),
]


class Instance(msgspec.Struct):
    """An instance; the original's fields come first.

    `metrics` is the object of the current snapshot, as sent, without hidden metrics. `counted`: whether the headline
    counts the instance.
    """

    instance_id: str
    app_name: str
    app_slug: str
    app_version: str
    environment: str
    status: Status
    last_seen_at: Timestamp | None
    deployment_mode: str
    metrics: Metrics
    os_arch: str
    first_seen_at: Timestamp | None
    snapshot_at: Timestamp | None
    counted: bool
    version_rank: VersionRank


_TYPES = get_type_hints(Instance, include_extras=True)

COLUMNS = tuple(name for name in _TYPES if name != "metrics")
TEXT_COLUMNS = tuple(name for name in COLUMNS if _TYPES[name] is str)
TIME_COLUMNS = tuple(name for name in COLUMNS if _TYPES[name] == Timestamp | None)
