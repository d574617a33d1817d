"""Whether files in a directory survive the container that writes them.

A container's own file system, and a file system in memory, end with the container. An identity there is a new install
at each start, so it counts as ephemeral until it has proved to last.
"""

import os
from pathlib import Path

MOUNTS_FILE = Path("/proc/self/mountinfo")
MEMORY_TYPES = frozenset({"tmpfs", "ramfs"})
LAYER_TYPES = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})  # the writable layer of a container, mounted at /


def is_ephemeral(directory: Path, mounts_file: Path = MOUNTS_FILE) -> bool:
    """Whether the directory is in memory or in a container's own layer. False where the system does not tell."""
    try:
        mounts = mounts_file.read_text(errors="replace")
        target = os.path.realpath(directory)
    except OSError:
        return False
    deepest, file_system = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        mount_point = parts[4].replace("\\040", " ")
        is_parent = mount_point == "/" or target == mount_point or target.startswith(f"{mount_point}/")
        if is_parent and len(mount_point) >= len(deepest):  # a later mount at the same place hides the earlier one
            deepest, file_system = mount_point, rest.split(" ")[0]
    return file_system in MEMORY_TYPES or (deepest == "/" and file_system in LAYER_TYPES)
