"""The default of the data directory, which holds the embedded PostgreSQL, tokens and keys."""

import os

import platformdirs

SYSTEM_DATA_DIR = "/var/lib/shm"


def default_data_dir() -> str:
    """The user's data directory; for root a system directory, which the user of the embedded PostgreSQL can enter.

    A container's user may have no home directory, neither in HOME nor in the list of users.
    """
    try:
        return SYSTEM_DATA_DIR if os.geteuid() == 0 else str(platformdirs.user_data_path("shm", appauthor=False))
    except RuntimeError:
        return SYSTEM_DATA_DIR
