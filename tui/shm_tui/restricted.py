"""Restricted mode: a console that executes, writes and keeps nothing on the machine that it runs on.

`shm console --restricted` sets it, for somebody who may use the console but not the account that it runs in: OpenSSH's
ForceCommand. Each session of `shm ssh` has it. A feature that starts a program, writes a file or stores a token asks
first: `ConsoleApp.is_restricted` on the screen, `args.restricted` before that. It does something else, or shows
`restricted_notice`.
"""

from collections.abc import MutableMapping

TEXTUAL_PREFIX = "TEXTUAL"  # Textual's variables name files that it writes, and a class that it loads


def restricted_notice(feature: str) -> str:
    """The notice for the user in place of a feature, which is the subject of the sentence: `Screenshots`."""
    return f"{feature}: not in this session. It is restricted: nothing is executed or written on the server's machine"


def remove_textual_variables(environ: MutableMapping[str, str]) -> None:
    """Removes Textual's variables, which the client of an SSH session may have set. Before Textual is imported."""
    for name in [name for name in environ if name.startswith(TEXTUAL_PREFIX)]:
        del environ[name]
