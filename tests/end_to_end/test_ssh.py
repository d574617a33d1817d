"""The console over SSH, with the real OpenSSH client."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from shm.cli.ssh.server import MAX_LOGINS
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import free_port
from tests.support.ssh import NEEDS_CLIENT, USER, SshProcess, client_environment, make_key, ssh_process, wait_until
from tests.support.terminal import Terminal

pytestmark = NEEDS_CLIENT

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
PER_KEY = 2  # sessions
UNUSED_KEY = "_"


@pytest.fixture(scope="module")
def ssh(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshProcess]:
    """`shm ssh` for a server with one install, with an admin `ana` and a viewer `vic`."""
    folder = tmp_path_factory.mktemp("ssh")
    with (
        module_server(postgres, folder) as (server, dsn),
        ssh_process(server, dsn, folder, SHM_SSH_MAX_SESSIONS_PER_KEY=str(PER_KEY), SHM_LOG_LEVEL="debug") as process,
    ):
        Install(server.url).enroll({"sent": 111})
        process.authorize("ana", "--role", "admin")
        process.authorize("vic")
        yield process


def test_a_login_opens_the_console_with_the_role_of_the_key(ssh: SshProcess, tmp_path: Path) -> None:
    """Its decisions are in the audit trail with the token of the key. The client's variables change nothing."""
    variables = {"SHM_TOKEN": "wrong", "SHM_SERVER": "http://127.0.0.1:1", "TEXTUAL_LOG": str(tmp_path / "log")}
    options = [f"-oSetEnv={' '.join(f'{name}={value}' for name, value in variables.items())}"]
    Install(ssh.server.url, app_name="Sessions").enroll({"sent": 222})
    with ssh.open("vic", (80, 24), *options) as viewer, ssh.open("ana", (80, 24), *options) as admin:
        for terminal in (viewer, admin):
            terminal.wait_for_texts("● live")
            terminal.type_keys(":sessions/instances\r")
            terminal.wait_for_texts("Sessions", "222")
        wait_for_role(admin)
        for terminal in (viewer, admin):
            terminal.type_keys("R")
        admin.wait_for_texts("Revoke this instance?")
        admin.type_keys("y")
        admin.wait_for_texts("Revoked")
        assert "Revoke" not in viewer.screen
        viewer.resize(120, 36)
        viewer.wait_for_texts("APPLICATIONS", "1 revoked")
        for terminal in (viewer, admin):
            terminal.type_keys("q")
            assert terminal.wait_for_exit() == 0
            assert is_restored(terminal)
    ssh.wait_until_nobody_is_left()
    (entry,) = (entry for entry in ssh.server.get("audit").json() if entry["action"] == "revoke_instance")
    names = {token["id"]: token["name"] for token in ssh.server.get("tokens").json()}
    assert names[entry["token_id"]] == "ana (SSH)"
    assert list(tmp_path.iterdir()) == []


def test_everything_but_a_console_is_refused(ssh: SshProcess, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    stranger = ssh.connect(str(tmp_path / "stranger"), "-tt")
    assert (stranger.returncode, stranger.stdout) == (255, "")
    assert "Permission denied (publickey)" in stranger.stderr
    password = ssh.connect(
        "ana", "-oPubkeyAuthentication=no", "-oPreferredAuthentications=password,keyboard-interactive"
    )
    assert "Permission denied (publickey)" in password.stderr
    command = ssh.connect("ana", "-tt", "touch", str(tmp_path / "touched"))
    assert (command.returncode, "runs no command" in command.stdout + command.stderr) == (1, True)
    assert not (tmp_path / "touched").exists()
    without_terminal = ssh.connect("ana", "-T")
    assert (without_terminal.returncode, "needs a terminal" in without_terminal.stderr) == (1, True)
    subsystem = ssh.connect("ana", "-s", "sftp")
    assert (subsystem.returncode, "subsystem request failed" in subsystem.stderr) == (255, True)
    with socket.create_server(("127.0.0.1", 0)) as target:
        to_target = f"127.0.0.1:{target.getsockname()[1]}"
        for remote in (f"-R{free_port()}:{to_target}", f"-R{tmp_path}/remote:{to_target}"):
            forwarded = ssh.connect("ana", "-N", "-oExitOnForwardFailure=yes", remote)
            assert (forwarded.returncode, "remote port forwarding failed" in forwarded.stderr) == (255, True)
        direct = ssh.connect("ana", f"-W{to_target}")
        assert (direct.returncode, "forwarding failed" in direct.stderr) == (255, True)
        target.settimeout(0)
        with pytest.raises(BlockingIOError):
            target.accept()
    assert not reaches_socket(ssh, tmp_path / "socket")
    assert not [line for line in ssh.log.splitlines() if "served" not in line and ("127.0.0.1" in line or USER in line)]


def test_a_client_that_offers_several_keys_gets_in_with_the_one_it_has(ssh: SshProcess, tmp_path: Path) -> None:
    """Unknown keys come first, then an authorized one whose private key is not on the client's machine."""
    for number in range(4):
        make_key(tmp_path / f"stranger{number}")
    shutil.copy(ssh.folder / "ana.pub", tmp_path / "unplugged.pub")
    keys = [*(f"stranger{number}" for number in range(1, 4)), "unplugged", str(ssh.folder / "vic")]
    login = ssh.connect(str(tmp_path / "stranger0"), *(f"-i{tmp_path / key}" for key in keys), "-T")
    assert (login.returncode, "needs a terminal" in login.stderr) == (1, True), login.stderr


def test_a_lost_connection_leaves_no_console_and_no_subscriber(ssh: SshProcess) -> None:
    with ssh.open("ana") as terminal:
        terminal.wait_for_texts("● live")
        assert len(ssh.consoles()) == 1
        terminal.process.kill()
        ssh.wait_until_nobody_is_left()


@pytest.mark.long
def test_a_key_has_a_limit_of_sessions_and_ends_with_its_removal(ssh: SshProcess) -> None:
    ssh.authorize("eve")
    with ExitStack() as stack:
        terminals = [stack.enter_context(ssh.open("eve")) for _ in range(PER_KEY)]
        for terminal in terminals:
            terminal.wait_for_texts("● live")
        further = ssh.connect("eve", "-tt", "-oLogLevel=INFO")
        assert (further.returncode, f"the maximum of {PER_KEY} consoles of this key" in further.stderr) == (255, True)
        ssh.run("remove", "eve")
        for terminal in terminals:
            assert terminal.wait_for_exit() == 0
            assert is_restored(terminal)
            assert b"its key is no longer authorized" in terminal.output
    assert "Permission denied" in ssh.connect("eve", "-tt").stderr
    assert "eve" not in {token["name"].split()[0] for token in ssh.server.get("tokens").json()}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
def test_a_signal_ends_all_consoles_and_restores_their_terminals(
    ssh: SshProcess, tmp_path: Path, number: signal.Signals
) -> None:
    with ssh_process(ssh.server, ssh.dsn, tmp_path) as process, ExitStack() as stack:
        process.authorize("sig")
        terminals = [stack.enter_context(process.open("sig")) for _ in range(2)]
        for terminal in terminals:
            terminal.wait_for_texts("● live")
        assert process.terminate(number) == 0
        for terminal in terminals:
            terminal.wait_for_exit()
            assert is_restored(terminal)
            assert b"the server was stopped" in terminal.output
        ssh.wait_until_nobody_is_left()


@pytest.mark.long
def test_damaged_keys_end_a_console_with_their_own_reason(ssh: SshProcess, tmp_path: Path) -> None:
    with ssh_process(ssh.server, ssh.dsn, tmp_path) as process:
        process.authorize("dan")
        with process.open("dan") as terminal:
            terminal.wait_for_texts("● live")
            (process.data_dir / "ssh/authorized_keys.json").write_text("[")
            terminal.wait_for_exit()
            assert is_restored(terminal)
            assert b"the server cannot read its authorized keys" in terminal.output


@pytest.mark.long
def test_a_killed_server_of_consoles_leaves_none(ssh: SshProcess, tmp_path: Path) -> None:
    with ssh_process(ssh.server, ssh.dsn, tmp_path) as process:
        process.authorize("kim")
        with process.open("kim") as terminal:
            terminal.wait_for_texts("● live")
            children = psutil.Process(process.process.pid).children(recursive=True)
            process.process.kill()
            process.process.wait()
            assert not psutil.wait_procs(children, 60)[1]
        ssh.wait_until_nobody_is_left()


@pytest.mark.long
def test_ten_sessions_share_the_server(ssh: SshProcess, tmp_path: Path) -> None:
    install = Install(ssh.server.url, app_name="Shared").enroll({"sent": 1})
    limits = {"SHM_SSH_MAX_SESSIONS_PER_KEY": "11", "SHM_SSH_MAX_SESSIONS": "10"}
    with ssh_process(ssh.server, ssh.dsn, tmp_path, **limits) as process, ExitStack() as stack:
        process.authorize("ten")
        terminals = [stack.enter_context(process.open("ten")) for _ in range(10)]
        for terminal in terminals:
            terminal.wait_for_texts("● live")
            terminal.type_keys(":shared/instances\r")
        assert install.snapshot({"sent": 987}).status_code == 202
        for terminal in terminals:
            terminal.wait_for_texts("Shared", "987")
        assert len(process.consoles()) == 10
        assert "the maximum of 10 consoles is open" in process.connect("ten", "-tt", "-oLogLevel=INFO").stderr
        for terminal in terminals:
            terminal.process.send_signal(signal.SIGKILL)
        process.wait_until_nobody_is_left()


@pytest.mark.long
def test_idle_consoles_end(ssh: SshProcess, tmp_path: Path) -> None:
    with ssh_process(ssh.server, ssh.dsn, tmp_path, SHM_SSH_IDLE_TIMEOUT="5s") as process:
        process.authorize("ida")
        with process.open("ida") as terminal:
            terminal.wait_until(lambda: is_live_while_keys_are_typed(terminal))
            terminal.wait_for_exit()
            assert is_restored(terminal)
            assert b"no key was pressed for 5 seconds" in terminal.output
        process.wait_until_nobody_is_left()


@pytest.mark.long
def test_unused_connections_end(ssh: SshProcess, tmp_path: Path) -> None:
    with ssh_process(ssh.server, ssh.dsn, tmp_path, SHM_SSH_LOGIN_TIMEOUT="3s") as process:
        process.authorize("ida")
        assert process.connect("ida", "-N").returncode == 255
        with socket.create_connection(("127.0.0.1", process.port)) as silent:
            silent.settimeout(60)
            assert silent.recv(100).startswith(b"SSH-2.0-SHM")
            while silent.recv(4096):
                pass


@pytest.mark.long
def test_a_flood_of_connections_ends_no_console(ssh: SshProcess) -> None:
    with ssh.open("ana") as terminal, ExitStack() as stack:
        terminal.wait_for_texts("● live")
        flood = [stack.enter_context(socket.create_connection(("127.0.0.1", ssh.port))) for _ in range(MAX_LOGINS + 5)]
        flood[0].settimeout(60)
        while flood[0].recv(4096):
            pass
        assert ssh.connect("vic", "-T").returncode == 1
        terminal.type_keys("?")
        terminal.wait_for_texts("previous row")


def test_neither_the_agent_nor_x11_is_forwarded(ssh: SshProcess) -> None:
    """The server listens nowhere else while a client that asks for both has a console."""
    process = psutil.Process(ssh.process.pid)
    listening = len(process.net_connections("all"))
    environment = client_environment() | {"DISPLAY": ":99"}
    command = ["ssh-agent", *ssh.command("ana", "-A", "-X")]
    terminal = Terminal(command, (80, 24), environment)
    try:
        terminal.wait_for_texts("● live")
        assert len(process.net_connections("all")) == listening + 1  # that of the client
    finally:
        terminal.close()
    ssh.wait_until_nobody_is_left()


def reaches_socket(ssh: SshProcess, target: Path) -> bool:
    """Whether a local forwarding to a Unix socket of the server's machine arrives there."""
    port = free_port()
    client = subprocess.Popen(ssh.command("ana", "-N", f"-L{port}:{target}"), stderr=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(target))
            listener.listen()
            listener.settimeout(0)
            with socket.socket() as connection:
                wait_until(lambda: connection.connect_ex(("127.0.0.1", port)) == 0, "the client's listener")
                with suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
            try:
                listener.accept()
            except BlockingIOError:
                return False
            return True
    finally:
        client.kill()
        client.wait()


def is_live_while_keys_are_typed(terminal: Terminal) -> bool:
    """Whether the console has started. Types a key, so that a slow one is not idle while it starts."""
    terminal.type_keys(UNUSED_KEY)
    return "● live" in terminal.screen


def wait_for_role(admin: Terminal) -> None:
    """Waits until the console knows that its token is an admin's: only then can a row be marked."""

    def is_marked() -> bool:
        admin.type_keys("u ")
        return "1 marked" in admin.screen

    admin.wait_until(is_marked)
    admin.type_keys("u")


def is_restored(terminal: Terminal) -> bool:
    """Whether the console has left the screen, and the client the raw mode."""
    wait_until(lambda: terminal.attributes() == list(terminal.initial_attributes), "the terminal's attributes")
    return terminal.output.rindex(LEAVE_ALTERNATE_SCREEN) > terminal.output.rindex(b"\x1b[?1049h")
