"""The settings of the server and of `shm ssh`: their definitions, and how they are read."""

from shm.core.settings.server import Settings
from shm.core.settings.ssh import SshSettings

__all__ = ["Settings", "SshSettings"]
