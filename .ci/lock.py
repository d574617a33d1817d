"""Resolves every dependency of both distributions to exact versions with hashes: requirements.lock.

Without an argument the lock is written anew; with `--check` it is only compared with what pyproject.toml asks for,
keeping the versions that it names.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
UV = Path(sysconfig.get_path("scripts")) / "uv"


def resolve(into: Path, *options: str) -> None:
    """Runs the resolver; versions already named in `into` are kept where they still fit."""
    subprocess.run(
        [
            *(str(UV), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
            *("--group", "dev", "--extra", "system", "--no-annotate", "--custom-compile-command", "make lock"),
            *("--output-file", str(into), *options, "pyproject.toml", "sdk/pyproject.toml"),
        ],
        cwd=ROOT,
        check=True,
    )


def check() -> str | None:
    """The lock's fault in a sentence, or None when it fits both pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / LOCK.name
        shutil.copy(LOCK, fresh)
        resolve(fresh)
        if fresh.read_text() != LOCK.read_text():
            return f"{LOCK.name} does not fit pyproject.toml; mend it: make lock"
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    resolve(LOCK, "--upgrade")
