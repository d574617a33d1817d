"""The user's pager: `$PAGER`, else `less` or `more`."""

import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping

DEFAULT_PAGERS = ("less", "more")


def find_pager(environ: Mapping[str, str]) -> list[str] | None:
    """The command of the pager with its options; None if there is none."""
    try:
        command = shlex.split(environ.get("PAGER", ""))
    except ValueError:  # an open quote
        command = []
    candidates = [command] if command else [[name] for name in DEFAULT_PAGERS]
    return next((candidate for candidate in candidates if shutil.which(candidate[0])), None)


def run_pager(command: list[str], text: str) -> str:
    """Shows a text in the pager, which gets it on standard input. Returns why that failed, or ""."""
    # The terminal sends Ctrl+C to this process as well, which must not end meanwhile. A handler, unlike SIG_IGN, is
    # not inherited by the pager.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run(command, input=text.encode(), check=False)
    except BrokenPipeError:
        return ""  # the user closed it before it had read everything
    except OSError as error:
        return f"{command[0]} cannot be executed: {error.strerror}"
    finally:
        signal.signal(signal.SIGINT, before)
    return ""
