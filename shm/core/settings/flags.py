"""The command's flags for settings."""

import argparse

from shm.core.settings.fields import setting_specs
from shm.core.settings.server import Settings
from shm.core.settings.ssh import SshSettings


def add_flags(parser: argparse.ArgumentParser, *only: str, settings: type[Settings | SshSettings] = Settings) -> None:
    """Adds a flag for each setting, or only for those named. Its help has the reason, default and variables."""
    for name, spec in setting_specs(settings).items():
        if not spec.has_flag or (only and name not in only):
            continue
        default = f" Default: {spec.default}." if spec.default else ""
        variables = ", ".join((*spec.variables, *spec.file_variables))
        description = f"{spec.reason}{default} [{variables}]".replace("%", "%%")
        parser.add_argument("--" + name.replace("_", "-"), dest=name, metavar="…", help=description)
