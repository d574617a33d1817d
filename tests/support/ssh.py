"""`shm ssh` as a process of its own, and the OpenSSH client as its users have it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import psutil
import pytest

from tests.support.prometheus_scrape import sample_value, scrape
from tests.support.server_process import ServerProcess, free_port
from tests.support.shm_command import SHM, run_shm
from tests.support.terminal import Terminal

LIMIT_S = 60
USER = "somebody-with-this-name"  # which no log may contain
NEEDS_CLIENT = pytest.mark.skipif(shutil.which("ssh") is None, reason="the OpenSSH client is not installed")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Waits until `condition` holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)


class SshProcess:
    """A running `shm ssh` with its own keys. `folder` has the private keys of its users, by their names."""

    def __init__(self, server: ServerProcess, dsn: str, folder: Path, **environment: str) -> None:
        self.server, self.dsn, self.folder = server, dsn, folder
        self.port = free_port()
        self.log_file = folder / "ssh.log"
        arguments = ["ssh", "--port", str(self.port), "--server", server.url, "--data-dir", str(self.data_dir)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*SHM, *arguments],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: "are served" in self.log or self.process.poll() is not None, "the start of shm ssh")
        assert self.process.poll() is None, self.log

    @property
    def data_dir(self) -> Path:
        """The directory of its keys."""
        return self.folder / "keys"

    @property
    def log(self) -> str:
        """Its log."""
        return self.log_file.read_text()

    def authorize(self, name: str, *options: str) -> None:
        """Makes a key for a user and authorizes it."""
        make_key(self.folder / name)
        self.run("add", name, str(self.folder / f"{name}.pub"), *options)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs `shm ssh` with arguments such as `list`."""
        completed = run_shm("ssh", *arguments, "--data-dir", str(self.data_dir), SHM_DB_DSN=self.dsn)
        assert completed.returncode == 0, completed.stderr
        return completed

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of the client, with the key of a user."""
        return client_command(self.port, self.folder / name, *arguments)

    def connect(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs the client without a terminal, to its end."""
        return subprocess.run(
            self.command(name, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    @contextmanager
    def open(self, name: str, size: tuple[int, int] = (80, 24), *options: str) -> Iterator[Terminal]:
        """The client in a terminal."""
        terminal = Terminal(self.command(name, *options), size, client_environment())
        try:
            yield terminal
        finally:
            terminal.close()

    def consoles(self) -> list[psutil.Process]:
        """The processes of its sessions: children of the fork server."""
        return [
            console
            for child in psutil.Process(self.process.pid).children()
            for console in child.children()
            if console.status() != psutil.STATUS_ZOMBIE
        ]

    def wait_until_nobody_is_left(self) -> None:
        """Waits until there is no console, and no subscriber of the server's feed."""
        wait_until(lambda: not self.consoles(), "the end of all consoles")
        wait_until(lambda: not self._subscribers(), "the end of all subscriptions")

    def _subscribers(self) -> float:
        return sample_value(scrape(self.server), "shm_feed_subscribers", worker="1")

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal to its process group, as systemd does. Returns its exit status. No process may be left."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, number)
        status = self.process.wait(LIMIT_S)
        _, left = psutil.wait_procs(processes, LIMIT_S)
        assert not left
        return status


@contextmanager
def ssh_process(server: ServerProcess, dsn: str, folder: Path, **environment: str) -> Iterator[SshProcess]:
    """A running `shm ssh`, which has ended afterwards."""
    process = SshProcess(server, dsn, folder, **environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.terminate()


def make_key(file: Path, *options: str) -> None:
    """Makes a private key without a passphrase, and the public one beside it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", f"{USER}@laptop", "-f", str(file), *(options or ("-t", "ed25519"))],
        stdin=subprocess.DEVNULL,
        check=True,
    )


def client_command(port: int, key: Path, *arguments: str, user: str = USER) -> list[str]:
    """The client without the settings of this machine. It trusts any server, and offers one key.

    The arguments are options in one word each, then those of a remote command.
    """
    options = ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={os.devnull}", "LogLevel=ERROR"]
    flags = [flag for option in options for flag in ("-o", option)]
    before = list(takewhile(lambda argument: argument.startswith("-"), arguments))
    after = arguments[len(before) :]
    return ["ssh", "-F", "none", "-p", str(port), "-i", str(key), *before, *flags, f"{user}@127.0.0.1", *after]


def client_environment() -> dict[str, str]:
    """The environment of a user in a terminal."""
    return {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "HOME": "/nonexistent"}
