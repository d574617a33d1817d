"""Imported by the fork server: the console and what its screen needs, so that each console shares their memory."""

import gc
from importlib.metadata import entry_points

from shm.cli.main import GROUP

for point in entry_points(group=GROUP, name="console"):
    point.load().preload()

gc.collect()
gc.freeze()  # the garbage collector would copy every page that has an object
