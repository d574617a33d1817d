"""Restricted mode: a console that executes, writes and keeps nothing on the machine that it runs on.

`shm console --restricted` sets it, for somebody who may use the console but not the account that it runs in: OpenSSH's
ForceCommand. Each session of `shm ssh` has it. A feature that starts a program, writes a file or stores a token asks
first: `ConsoleApp.is_restricted` on the screen, `args.restricted` before that. It does something else, or shows
`restricted_notice`. One that forgets to ask gets an error (`forbid_host_access`).
"""

import errno
import os
import resource
import socket
import sys
from collections.abc import MutableMapping

# Python's names of what starts a program or changes a directory, as in its table of audit events.
FORBIDDEN_EVENTS = frozenset(
    {
        *(
            "os.exec",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.spawn",
            "os.system",
            "pty.spawn",
            "subprocess.Popen",
        ),
        *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"),
        *("os.truncate", "os.utime", "shutil.copyfile", "shutil.move", "shutil.rmtree"),
    }
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND  # flags of opening

TEXTUAL_PREFIX = "TEXTUAL"  # Textual's variables name files that it writes, and a class that it loads


def restricted_notice(feature: str) -> str:
    """The notice for the user in place of a feature, which is the subject of the sentence: `Screenshots`."""
    return f"{feature}: not in this session. It is restricted: nothing is executed or written on the server's machine"


def remove_textual_variables(environ: MutableMapping[str, str]) -> None:
    """Removes Textual's variables, which the client of an SSH session may have set. Before Textual is imported."""
    for name in [name for name in environ if name.startswith(TEXTUAL_PREFIX)]:
        del environ[name]


def forbid_host_access() -> None:
    """From now on, this process gets an OSError when it starts a program, opens a file for writing or changes one.

    The kernel refuses to write into files, whatever writes. Python refuses the rest, as far as it raises an audit event
    for it: `os.mkfifo` has none, and an extension in C need not raise any. Terminals and connections are no files.
    """
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.addaudithook(_refuse_host_access)


def _refuse_host_access(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        is_forbidden = isinstance(flags, int) and flags & WRITING and path != os.devnull and not isinstance(path, int)
    elif event == "socket.bind":
        is_forbidden = getattr(arguments[0], "family", None) == socket.AF_UNIX
    else:
        is_forbidden = event in FORBIDDEN_EVENTS
    if is_forbidden:
        raise PermissionError(errno.EACCES, "a restricted session starts no program and writes no file")
