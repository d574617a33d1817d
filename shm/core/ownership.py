"""The owner of files that root creates in a user's directory."""

import os
from pathlib import Path


def chown_to_owner_of(directory: Path, descriptor: int) -> None:
    """As root: makes the owner of `directory` the owner of an open file that belongs to root.

    Root may run a command on a user's data directory, and that user's own server has to read its files afterwards.
    """
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid == 0:
        owner = directory.stat()
        if owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
