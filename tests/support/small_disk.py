"""A tmpfs of a few megabytes, which a test fills.

Root mounts it. Other users mount it in a user namespace and reach it through the root folder of a process in that
namespace. Where neither is allowed, the test is skipped with the reason.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE = "96m"  # a fresh PostgreSQL takes 40
CHUNKS = (1024 * 1024, 4096, 1)


@dataclass
class SmallDisk:
    """A folder on a file system of its own."""

    folder: Path

    def fill(self) -> None:
        """Writes a file until no byte is free."""
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            for size in CHUNKS:
                try:
                    while ballast.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free_space(self) -> None:
        """Deletes the file that `fill` wrote."""
        (self.folder / "ballast").unlink(missing_ok=True)


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Mounts a small disk and unmounts it at the end."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "shm-tests", folder]
        if os.geteuid() == 0:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"root cannot mount a tmpfs here: {done.stderr.strip()}")
            try:
                yield SmallDisk(Path(folder))
            finally:
                subprocess.run(["umount", "--lazy", folder], check=True)
            return
        namespace = ["unshare", "--user", "--map-current-user", "--mount", "--keep-caps"]
        script = '"$@" && echo mounted && exec cat'
        with subprocess.Popen(
            [*namespace, "sh", "-c", script, "sh", *mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            output = holder.stdout.readline()
            if output != "mounted\n":
                pytest.skip(f"an ordinary user cannot mount a tmpfs here: {output.strip()}")
            try:
                yield SmallDisk(Path(f"/proc/{holder.pid}/root{folder}"))
            finally:
                holder.stdin.close()
