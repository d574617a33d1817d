"""Tells systemd that the server serves requests: `systemctl start` returns then (`Type=notify` of a unit)."""

import os
import socket
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"  # the path of systemd's socket; with @ in place of NUL, an abstract one


def notify_ready() -> None:
    """Does nothing where systemd does not wait for it."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notification:
        notification.setblocking(False)  # a manager that does not read keeps no server from its work
        notification.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)
