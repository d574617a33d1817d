"""Copying by OSC 52: the sequence, plain and wrapped, and what a real terminal receives."""

import re
from base64 import b64decode

import pytest

from shm_tui.text.osc52 import MAX_BYTES, SCREEN_CHUNK, copy_sequence
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.terminal import open_terminal


def copied(sequence: str) -> str:
    """The text that a terminal copies for a plain sequence."""
    match = re.fullmatch(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert match, ascii(sequence)
    return b64decode(match[1]).decode()


def test_any_text_is_encoded() -> None:
    for text in ("", "a3b4c5d6", "日本\n\x1b[31m", "x" * MAX_BYTES):
        assert copied(copy_sequence(text, {}) or "") == text


def test_a_text_that_terminals_would_drop_is_refused() -> None:
    assert copy_sequence("x" * (MAX_BYTES + 1), {}) is None
    assert copy_sequence("é" * MAX_BYTES, {}) is None


@pytest.mark.parametrize("length", [3, 5000])
def test_tmux_and_screen_pass_the_sequence_through(length: int) -> None:
    text = "x" * length
    tmux = copy_sequence(text, {"TMUX": "socket,1,0", "STY": "1.pts-0"}) or ""
    assert copied(tmux.removeprefix("\x1bPtmux;").removesuffix("\x1b\\").replace("\x1b\x1b", "\x1b")) == text
    screen = copy_sequence(text, {"STY": "1.pts-0"}) or ""
    chunks = re.findall(r"\x1bP((?:(?!\x1b\\).)*)\x1b\\", screen, re.DOTALL)
    assert copied("".join(chunks)) == text
    assert max(map(len, chunks)) <= SCREEN_CHUNK


def test_y_copies_the_id_and_in_the_details_the_json(server: ServerProcess) -> None:
    install = Install(server.url).enroll({"sent": 111, "hostile": "\x1b]52;c;aGk=\x07"})
    with open_terminal(server, (80, 24), TMUX="", STY="") as terminal:
        terminal.wait_for_texts("SHM  Ledger", "111", "● live")
        terminal.type_keys("y")
        terminal.wait_for_texts("Copied the ID")
        terminal.type_keys("\r")
        terminal.wait_for_texts("IDENTITY")
        terminal.type_keys("y")
        terminal.wait_for_texts("Copied the metrics")
        texts = [b64decode(match).decode() for match in re.findall(rb"\x1b\]52;c;([^\x07]*)\x07", terminal.output)]
        assert texts[0] == install.instance_id
        assert '"sent": 111' in texts[1]
        assert "\x1b" not in texts[1]
        assert len(texts) == 2
