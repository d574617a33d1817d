"""The fields of an instance in every row that a statement reads: of a registration, and of an import."""

import msgspec


class InstanceRow(msgspec.Struct, kw_only=True):
    """An instance and what it says about itself. `version_rank`: that of `app_version`."""

    instance_id: str
    public_key: bytes
    app_slug: str
    app_name: str
    app_version: str
    version_rank: str
    environment: str
    deployment_mode: str
    os_arch: str
