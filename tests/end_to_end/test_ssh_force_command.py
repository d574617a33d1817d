"""OpenSSH's sshd with the configuration of docs/console.md."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.installs import Install
from tests.support.server_process import ServerProcess, free_port
from tests.support.ssh import NEEDS_CLIENT, client_command, client_environment, make_key, wait_until
from tests.support.terminal import Terminal

GUIDE = (Path(__file__).parents[2] / "docs/console.md").read_text(encoding="utf-8")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
OF_THE_TEST = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
AcceptEnv *
Subsystem sftp internal-sftp
"""

pytestmark = [NEEDS_CLIENT, pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed")]


def guide_block(first_words: str) -> str:
    """The block of docs/console.md that begins with these words."""
    match = re.search(rf"^```\n({re.escape(first_words)}.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert match, first_words
    return match[1]


@contextmanager
def sshd(server: ServerProcess, folder: Path) -> Iterator[int]:
    """A running sshd as the guide configures it for the user of this test. Yields its port; `key` is authorized."""
    assert SSHD is not None
    port = free_port()
    for name in ("host_key", "key"):
        make_key(folder / name)
    (folder / "token").write_text(server.admin_token)
    line = guide_block("environment=").replace("/etc/shm/ana.token", str(folder / "token"))
    key = (folder / "key.pub").read_text().split()
    (folder / "authorized_keys").write_text(line.replace("ssh-ed25519 AAAA...", " ".join(key[:2])))
    configuration = guide_block("PermitUserEnvironment").replace("shm-console", getpass.getuser())
    command = f"{sys.executable} -m shm.cli console --restricted --server {server.url}"
    configuration = configuration.replace("/opt/shm/bin/shm console --restricted", command)
    (folder / "sshd_config").write_text(OF_THE_TEST.format(port=port, folder=folder) + configuration)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, as its package makes it at each start
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        wait_until(lambda: "listening" in (folder / "sshd.log").read_text() or process.poll() is not None, "sshd")
        assert process.poll() is None, (folder / "sshd.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(60)


def test_forcecommand_opens_the_console_and_nothing_else(server: ServerProcess, tmp_path: Path) -> None:
    Install(server.url).enroll({"sent": 111})
    touched = tmp_path / "touched"
    with sshd(server, tmp_path) as port:
        variable = f"-oSetEnv=TEXTUAL_LOG={touched}"
        command = client_command(port, tmp_path / "key", "-tt", variable, "touch", str(touched), user=getpass.getuser())
        terminal = Terminal(command, (80, 24), client_environment())
        try:
            terminal.wait_for_texts("● live", "111")
            terminal.type_keys("q")
            assert terminal.wait_for_exit() == 0
        finally:
            terminal.close()
        for arguments in (("-s", "sftp"), ("-T", f"-R{free_port()}:127.0.0.1:1", "-oExitOnForwardFailure=yes")):
            refused = subprocess.run(
                client_command(port, tmp_path / "key", *arguments, user=getpass.getuser()),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (refused.returncode != 0, refused.stdout) == (True, "")
            assert ("forwarding failed" in refused.stderr) == ("-T" in arguments)
    assert not touched.exists()
