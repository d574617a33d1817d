"""A real nginx before several servers, with `deploy/nginx.conf`: without TLS, and with the test's ports and files."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clusters import wait_for
from tests.support.server_process import free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"

needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")


class NginxBalancer:
    """Balances between the servers at these ports."""

    def __init__(self, ports: Sequence[int], folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        text = EXAMPLE.read_text()
        for old, new in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port}",
            "        listen [::]:443 ssl;\n": "",
            "server 127.0.0.1:8080 max_fails=0;": " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports),
            "/var/log/nginx": str(folder),
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "worker_processes auto;": "worker_processes 1; daemon off;",
        }.items():
            assert old in text
            text = text.replace(old, new)
        lines = [line for line in text.splitlines() if not line.strip().startswith("ssl_")]
        self._configuration = folder / "nginx.conf"
        self._configuration.write_text("\n".join(lines))

    @contextmanager
    def running(self) -> Iterator["NginxBalancer"]:
        """Runs it during the context."""
        command = ["nginx", "-p", str(self._folder), "-e", "stderr", "-c", str(self._configuration)]
        with (self._folder / "output").open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
            try:
                wait_for(lambda: process.poll() is not None or self._listens(), "nginx")
                assert process.poll() is None, (self._folder / "output").read_text()
                yield self
            finally:
                process.terminate()
                process.wait(20)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
