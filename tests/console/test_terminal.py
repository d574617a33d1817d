"""The console in a real terminal: a process on a pseudo-terminal, with a terminal emulator for its screen."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cluster_template import create_data_dir
from tests.support.installs import Install
from tests.support.module_server import module_server
from tests.support.server_process import ServerProcess
from tests.support.shm_command import SHM
from tests.support.terminal import Terminal, open_shm, open_terminal

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
MOUSE_OFF = b"\x1b[?1003l"


@pytest.fixture(scope="module")
def server_with_60_installs(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with 60 installs of Ledger."""
    with module_server(postgres, tmp_path_factory.mktemp("crowded")) as (server, _):
        for number in range(60):
            Install(server.url).enroll({"pizzas_eaten": 1000 * number, "beta": number % 2 == 0})
        yield server


@pytest.mark.parametrize(
    "size", [(80, 24), *(pytest.param(size, marks=pytest.mark.long) for size in ((120, 36), (200, 50)))]
)
def test_the_console_fills_the_terminal(server_with_60_installs: ServerProcess, size: tuple[int, int]) -> None:
    with open_terminal(server_with_60_installs, size) as terminal:
        terminal.wait_for_texts("Ledger", "PIZZAS EATEN", "1.77M", "INSTANCE", "VERSION", "SEEN", "● live", "/ filter")
        row_count = {24: 18, 36: 21, 50: 35}[size[1]]
        terminal.wait_until(lambda: sum("1.4.2" in line for line in terminal.screen.splitlines()) == row_count)
        assert ("APPLICATIONS" in terminal.screen) == (size[0] >= 100)
        assert "? help   q quit" in terminal.screen
        assert b"All applications" not in terminal.output
        assert size[0] >= 100 or b" All" not in terminal.output, "another application was drawn before the first one"
        terminal.type_keys("q")
        assert terminal.wait_for_exit() == 0


@pytest.mark.long
def test_the_console_follows_the_size_of_the_terminal(server: ServerProcess) -> None:
    Install(server.url).enroll({"pizzas_eaten": 1000})
    with open_terminal(server, (80, 24)) as terminal:
        terminal.wait_for_texts("PIZZAS EATEN 1.00k", "● live")
        terminal.resize(120, 36)
        terminal.wait_for_texts("APPLICATIONS", "1 active of 1 instance", "p50 1.00k")
        terminal.resize(80, 24)
        terminal.wait_until(lambda: "APPLICATIONS" not in terminal.screen and "PIZZAS EATEN 1.00k" in terminal.screen)


@pytest.mark.long  # the short suite kills a demo, terminates a console, and ends `make demo` with q
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_demo_restores_the_terminal(postgres_dir: Path, signal_number: signal.Signals) -> None:
    terminal = open_shm(
        (80, 24),
        "demo",
        "--data-dir",
        str(create_data_dir(postgres_dir)),
        "--instances",
        "9",
        SHM_TOKEN="of-another-server",
    )
    try:
        terminal.wait_for_texts("SHM  Ledger", "● live")
        terminal.process.send_signal(signal_number)
        assert terminal.wait_for_exit() == 128 + signal_number
        assert terminal.output.rindex(LEAVE_ALTERNATE_SCREEN) > terminal.output.rindex(b"\x1b[?1049h")
        assert terminal.attributes() == list(terminal.initial_attributes)
        assert not [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(postgres_dir) in " ".join(process.info["cmdline"] or ())
        ]
    finally:
        terminal.close()


def test_the_terminal_is_restored_after_q_and_after_sigterm(server: ServerProcess) -> None:
    Install(server.url).enroll({"a": 1})
    for uses_sigterm in (False, True):
        with open_terminal(server, (80, 24)) as terminal:
            terminal.wait_for_texts("● live")
            if uses_sigterm:
                terminal.process.send_signal(signal.SIGTERM)
            else:
                terminal.type_keys("q")
            assert terminal.wait_for_exit() == 0
            assert terminal.output.rindex(LEAVE_ALTERNATE_SCREEN) > terminal.output.rindex(b"\x1b[?1049h")
            assert MOUSE_OFF in terminal.output
            assert terminal.attributes() == list(terminal.initial_attributes)


def test_sigterm_while_widgets_are_mounted_restores_the_terminal(server: ServerProcess) -> None:
    with open_terminal(server, (80, 24)) as terminal:
        terminal.wait_until(lambda: b"\x1b[?1049h" in terminal.output)  # the first change of the terminal
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait_for_exit() == 0
        assert LEAVE_ALTERNATE_SCREEN in terminal.output
        assert terminal.attributes() == list(terminal.initial_attributes)


def test_a_console_without_its_terminal_ends(server: ServerProcess) -> None:
    """After a lost connection, also where SIGHUP is ignored: it would use a third of a core for ever."""
    Install(server.url).enroll({"a": 1})
    with open_terminal(server, (80, 24)) as terminal:
        terminal.wait_for_texts("● live")
        terminal.hang_up()
        assert terminal.process.wait(60) == -signal.SIGHUP


def test_no_control_sequence_of_an_install_reaches_the_terminal(server: ServerProcess) -> None:
    hostile = "\x1b]52;c;aGk=\x07\x1b[31mevil\x9b31m"
    install = Install(server.url, app_name=hostile, app_version=hostile, environment=hostile)
    install.enroll({"x\x1b]0;title\x07": hostile})
    with open_terminal(server, (200, 50)) as terminal:
        terminal.wait_for_texts(
            "evil", install.instance_id[:8], "1 active of 1 instance"
        )  # the console has opened the application
        terminal.type_keys("\r")
        terminal.wait_for_texts("IDENTITY", "evil")
        for command in (b"\x1b]52", b"\x1b]0;title", b"\x1b[31mevil", b"\xc2\x9b"):
            assert command not in terminal.output


@pytest.mark.long
def test_the_console_survives_a_killed_server_and_catches_up(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 111})
    with open_terminal(server, (80, 24)) as terminal:
        terminal.wait_for_texts("SHM  Ledger", "111", "● live")  # the only application has been opened
        server.kill()
        terminal.wait_for_texts("◌ disconnected", "retry in", "111")
        server.start()
        assert install.snapshot({"sent": 222}).status_code == 202
        terminal.wait_for_texts("222", "● live")


def test_a_terminal_without_cursor_control_is_refused() -> None:
    terminal = open_shm((80, 24), "console", SHM_TOKEN="x", TERM="dumb")
    try:
        assert terminal.wait_for_exit() == 1
        assert "(TERM=dumb) cannot draw a screen. Use --once." in terminal.screen
    finally:
        terminal.close()


@pytest.mark.parametrize(("value", "has_colours"), [("1", False), ("", True)])
def test_no_color_disables_colours_unless_it_is_empty(server: ServerProcess, value: str, has_colours: bool) -> None:
    Install(server.url).enroll({"sent": 111})
    with open_terminal(server, (80, 24), NO_COLOR=value) as terminal:
        terminal.wait_for_texts("SHM  Ledger", "111", "● live")
        assert (b"38;2;" in terminal.output, b"48;2;" in terminal.output) == (has_colours, has_colours)


@pytest.mark.parametrize("command", ["console", pytest.param("demo", marks=pytest.mark.long)])
def test_the_screen_is_on_the_terminal_while_errors_go_to_a_file(
    server: ServerProcess, postgres_dir: Path, command: str
) -> None:
    Install(server.url).enroll({"sent": 111})
    errors = postgres_dir / "errors"
    arguments = {
        "console": ["console", "--server", server.url],
        "demo": ["demo", "--server", server.url, "--instances", "3", "--data-dir", str(postgres_dir / "demo")],
    }[command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHM_", "TEXTUAL"))}
    terminal = Terminal(
        ["sh", "-c", 'exec "$@" 2>"$ERRORS"', "sh", *SHM, *arguments],
        (80, 24),
        environment | {"TERM": "xterm-256color", "ERRORS": str(errors), "SHM_TOKEN": server.admin_token},
    )
    try:
        terminal.wait_for_texts("SHM  Ledger", "● live")
        terminal.type_keys("q")
        assert terminal.wait_for_exit() == 0
        assert terminal.output.rindex(LEAVE_ALTERNATE_SCREEN) > terminal.output.rindex(b"\x1b[?1049h")
        assert b"\x1b" not in errors.read_bytes()
    finally:
        terminal.close()


@pytest.mark.long
def test_a_killed_demo_leaves_no_process_and_restores_the_terminal(postgres_dir: Path) -> None:
    terminal = open_shm((80, 24), "demo", "--data-dir", str(postgres_dir), "--instances", "9")

    def left() -> list[str]:
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        return [line for line in lines if str(postgres_dir) in line]

    try:
        terminal.wait_for_texts("SHM  Ledger", "● live")
        terminal.process.kill()
        terminal.wait_until(lambda: not left())
        terminal.wait_until(lambda: LEAVE_ALTERNATE_SCREEN in terminal.output)
        assert terminal.attributes() == list(terminal.initial_attributes)
    finally:
        terminal.close()


@pytest.mark.long
def test_a_hung_server_is_not_shown_as_live(server: ServerProcess) -> None:
    Install(server.url).enroll({"sent": 111})
    with open_terminal(server, (80, 24)) as terminal:
        terminal.wait_for_texts("SHM  Ledger", "111", "● live")
        processes = psutil.Process(server.pid).children(recursive=True)
        for process in (psutil.Process(server.pid), *processes):
            process.suspend()
        try:
            terminal.wait_until(lambda: "● live" not in terminal.screen)
            assert "◌ no answer for" in terminal.screen
            terminal.wait_for_texts("◌ disconnected", "111")
        finally:
            for process in (psutil.Process(server.pid), *processes):
                process.resume()
        terminal.wait_for_texts("● live")


@pytest.mark.long
def test_ctrl_c_cancels_the_prompt_and_asks_before_the_end(server_with_60_installs: ServerProcess) -> None:
    with open_terminal(server_with_60_installs, (120, 40)) as terminal:
        terminal.wait_for_texts("● live", "PIZZAS", "60 active of 60")
        terminal.type_keys("/pizzas")
        terminal.wait_for_texts("No instance matches")
        terminal.type_keys("\x03")
        terminal.wait_until(lambda: "No instance matches" not in terminal.screen)
        assert terminal.process.poll() is None
        terminal.type_keys("\x03")
        terminal.wait_for_texts("Ctrl+C again ends the console")
        terminal.type_keys("\x03")
        assert terminal.wait_for_exit() == 0
        assert terminal.attributes() == list(terminal.initial_attributes)


def test_a_click_and_the_wheel_reach_the_row_under_the_mouse(server_with_60_installs: ServerProcess) -> None:
    """In the mouse protocol of terminals (SGR), with cells that count from 1."""
    with open_terminal(server_with_60_installs, (120, 40)) as terminal:
        terminal.wait_for_texts("● live", "PIZZAS", "60 active of 60", "59.0k", "57.0k", "42.0k", "? help")
        y, line = next((y, line) for y, line in enumerate(terminal.screen.splitlines()) if "57.0k" in line)
        x = line.index("57.0k")
        for _ in range(2):  # the second click opens the details
            terminal.type_keys(f"\x1b[<0;{x + 1};{y + 1}M\x1b[<0;{x + 1};{y + 1}m")
        terminal.wait_for_texts("IDENTITY", "57,000")
        terminal.type_keys("\x1b")
        terminal.wait_until(lambda: "IDENTITY" not in terminal.screen)
        for _ in range(3):
            terminal.type_keys(f"\x1b[<65;{x + 1};{y + 1}M")
        terminal.wait_until(lambda: "59.0k" not in terminal.screen)
        terminal.type_keys("\r")
        terminal.wait_for_texts("IDENTITY", "48,000")
