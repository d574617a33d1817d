"""Fleets of the console's benches: made in a temporary folder, or kept for the next run."""

import shutil
from pathlib import Path

from bench.read.embedded_fleet import seed_embedded
from bench.read.seeded_fleet import SeededFleet


def prepare_fleet(parent: Path, installs: int) -> Path:
    """The data directory of a fleet with one snapshot of each install. One that is there is used as it is."""
    data_dir, complete = parent / f"fleet{installs}", parent / f"fleet{installs}.seeded"
    if not complete.exists():
        shutil.rmtree(data_dir, ignore_errors=True)
        parent.mkdir(parents=True, exist_ok=True)
        seed_embedded(data_dir, SeededFleet(installs, 1))
        complete.touch()
    return data_dir
