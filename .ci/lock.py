"""Resolves every dependency to exact versions with hashes.

`requirements.lock` has the dependencies of both distributions and the development tools. Three more locks are resolved
with its versions as constraints, so that a package has the same version in all of them:

- `requirements-server.lock`: the dependencies of an installed `shm-server`, for the image and for production;
- `requirements-build.lock`: the build dependencies of its wheel, and of editable installs;
- `requirements-bench-sdk.lock`: the environment of `make bench-sdk`.

Without an argument, the locks are written with the newest versions. With `--check`, they are only compared with the
requirements of pyproject.toml.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
SERVER_LOCK = "requirements-server.lock"
BUILD_LOCK = "requirements-build.lock"
BENCH_LOCK = "requirements-bench-sdk.lock"
EDITABLE = "editables"  # hatchling needs it for editable installs, and names it when it builds one only
UV = Path(sysconfig.get_path("scripts")) / "uv"


def resolve(folder: Path, *options: str) -> None:
    """Writes the locks in `folder`, with the versions of its requirements.lock where these are compatible."""
    with (ROOT / "pyproject.toml").open("rb") as project:
        build = tomllib.load(project)["build-system"]["requires"]
    everything = ("--group", "dev", "--extra", "system", "pyproject.toml", "sdk/pyproject.toml")
    _compile(folder / LOCK, *everything, *options)
    _compile(folder / SERVER_LOCK, "--constraint", str(folder / LOCK), "pyproject.toml")
    _compile(folder / BUILD_LOCK, "--constraint", str(folder / LOCK), "-", stdin="\n".join((*build, EDITABLE)))
    _compile(folder / BENCH_LOCK, "--constraint", str(folder / LOCK), "--group", "bench-sdk")


def _compile(lock: Path, *arguments: str, stdin: str = "") -> None:
    subprocess.run(
        [
            *(str(UV), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
            *("--no-annotate", "--custom-compile-command", "make lock", "--output-file", str(lock), *arguments),
        ],
        cwd=ROOT,
        input=stdin,
        text=True,
        check=True,
    )


def check() -> str | None:
    """Returns an error message if a lock does not match the two pyproject.toml, else None."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shutil.copy(ROOT / LOCK, scratch)
        resolve(scratch)
        for lock in (LOCK, SERVER_LOCK, BUILD_LOCK, BENCH_LOCK):
            if not (ROOT / lock).is_file() or (scratch / lock).read_text() != (ROOT / lock).read_text():
                return f"{lock} does not match pyproject.toml; to correct it: make lock"
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    resolve(ROOT, "--upgrade")
