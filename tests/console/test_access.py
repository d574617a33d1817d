"""The server's URL and the token: the precedence of their sources, and errors that do not contain the token."""

import os
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.auth.token_file import TOKEN_FILE as SERVER_TOKEN_FILE
from shm.core.default_data_dir import default_data_dir
from shm_tui.access import (
    DEFAULT_SERVER,
    TOKEN_FILE,
    find_token,
    is_unencrypted,
    resolve_data_dir,
    resolve_server_url,
)
from shm_tui.errors import AddressError, ConsoleError, TokenError

SECRET = "hunter2-hunter2-hunter2"


def test_the_precedence_of_the_servers_address() -> None:
    """Option, then environment, then this machine."""
    environ = {"SHM_SERVER": "https://metrics.example.com"}
    assert resolve_server_url("http://given:8080", environ) == "http://given:8080"
    assert resolve_server_url(None, environ) == "https://metrics.example.com"
    assert resolve_server_url(None, {}) == DEFAULT_SERVER
    assert resolve_server_url("", {"SHM_SERVER": ""}) == DEFAULT_SERVER


@pytest.mark.parametrize(
    ("option", "address"),
    [
        (" http://host/ ", "http://host"),
        ("https://host:8443/shm//", "https://host:8443/shm"),
        ("HTTP://Host", "http://Host"),
        ("hTTps://host", "https://host"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://bücher.example", "http://bücher.example"),
        ("http://shm_server:8080", "http://shm_server:8080"),
    ],
)
def test_an_address_is_normalized(option: str, address: str) -> None:
    """Trailing slashes are removed, and the scheme is converted to lower case."""
    assert resolve_server_url(option, {}) == address


@pytest.mark.parametrize(
    "address",
    [
        "metrics.example.com",
        "localhost:8080",
        "ftp://host",
        "ws://host",
        "http://",
        "http:///path",
        "http://:8080",
        "http://host:0",
        "http://host:99999",
        "http://host:x",
        "http://[::1",
        "http://ho st",
        "http://host/a b",
        "http://ho\nst",
        "http://a..b",
        f"http://{'a' * 64}",
        "http://1.2.3.400",
        "http://\x1b[2J",
        "x" * 5000,
    ],
    ids=lambda address: ascii(address[:40]),
)
def test_an_invalid_address_is_refused_with_a_sentence(address: str) -> None:
    with pytest.raises(AddressError, match="is not a server's address: expected http:// or https://") as caught:
        resolve_server_url(address, {})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "address",
    [
        f"http://admin:{SECRET}@host",
        f"http://{SECRET}@host",
        f"http://:{SECRET}@host",
        f"https://host/?token={SECRET}",
        f"https://host/#{SECRET}",
        f"htp://admin:{SECRET}@host",
        f"admin:{SECRET}@host",
        f"http://u:{SECRET}@host:99999",
        f"http://[::1?token={SECRET}",
    ],
)
def test_a_token_inside_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(AddressError, match="set the token with --token or SHM_TOKEN") as caught:
        resolve_server_url(address, {})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text() | st.text(alphabet="htps:/.[]%@? \t\\é1").map("http://".__add__))
def test_any_text_is_a_valid_address_or_is_refused(text: str) -> None:
    try:
        address = resolve_server_url(text, {})
    except AddressError:
        return
    assert address.startswith(("http://", "https://"))
    assert httpx.URL(address).host


def test_only_plain_http_to_another_machine_is_unencrypted() -> None:
    assert is_unencrypted("http://metrics.example.com")
    assert is_unencrypted("http://10.0.0.1:8080")
    assert not any(map(is_unencrypted, ("https://metrics.example.com", "http://127.0.0.1:8080", "http://[::1]")))


def write_token_file(folder: Path, token: str | bytes) -> Path:
    """Writes a token file, and returns its directory."""
    (folder / TOKEN_FILE).write_bytes(token if isinstance(token, bytes) else token.encode())
    return folder


def test_the_precedence_of_the_token(tmp_path: Path) -> None:
    write_token_file(tmp_path, "of-the-file\n")
    environ = {"SHM_TOKEN": "of-the-console", "SHM_ADMIN_TOKEN": "of-the-server"}
    assert find_token("given", tmp_path, DEFAULT_SERVER, environ) == "given"
    assert find_token(None, tmp_path, DEFAULT_SERVER, environ) == "of-the-console"
    assert find_token(None, tmp_path, DEFAULT_SERVER, environ | {"SHM_TOKEN": ""}) == "of-the-server"
    assert find_token(None, tmp_path, DEFAULT_SERVER, {}) == "of-the-file"


def test_a_variable_may_name_a_file_with_the_token(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of-the-secret\n")
    for name in ("SHM_TOKEN_FILE", "SHM_ADMIN_TOKEN_FILE"):
        assert find_token(None, tmp_path, DEFAULT_SERVER, {name: str(secret)}) == "of-the-secret"
        with pytest.raises(TokenError, match="No such file"):
            find_token(None, tmp_path, DEFAULT_SERVER, {name: str(tmp_path / "missing")})


def test_the_token_file_is_not_read_if_a_token_is_set(tmp_path: Path) -> None:
    assert find_token(None, tmp_path / "nowhere", DEFAULT_SERVER, {"SHM_TOKEN": "of-the-console"}) == "of-the-console"


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:8080", "https://localhost", "http://[::1]:8080", "http://127.8.8.8"]
)
def test_the_token_file_is_used_for_this_machine(server: str, tmp_path: Path) -> None:
    write_token_file(tmp_path, SECRET)
    assert find_token(None, tmp_path, server, {}) == SECRET


@pytest.mark.parametrize("server", ["https://metrics.example.com", "http://10.0.0.1", "http://127.0.0.1.example.com"])
def test_the_token_file_is_sent_to_no_other_machine(server: str, tmp_path: Path) -> None:
    write_token_file(tmp_path, SECRET)
    with pytest.raises(TokenError, match="only for a server on this machine"):
        find_token(None, tmp_path, server, {})
    assert find_token("given", tmp_path, server, {}) == "given"
    assert find_token(None, tmp_path, server, {"SHM_TOKEN": "of-the-console"}) == "of-the-console"


@pytest.mark.parametrize("name", ["SHM_ADMIN_TOKEN", "SHM_ADMIN_TOKEN_FILE"])
def test_the_servers_own_setting_is_sent_to_no_other_machine(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    environ = {name: SECRET if name == "SHM_ADMIN_TOKEN" else str(tmp_path / "secret")}
    assert find_token(None, tmp_path, DEFAULT_SERVER, environ) == SECRET
    with pytest.raises(TokenError, match="SHM_ADMIN_TOKEN are used only for a server on this machine"):
        find_token(None, tmp_path, "https://metrics.example.com", environ)


def test_the_error_without_a_token_names_options_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="set --token or SHM_TOKEN, or set --data-dir") as caught:
        find_token(None, tmp_path, DEFAULT_SERVER, {})
    assert str(tmp_path / TOKEN_FILE) in str(caught.value)


@pytest.mark.parametrize(
    "token", [f"{SECRET}\nx", f"{SECRET} x", f"{SECRET}ü", f"{SECRET}\r\nX-Evil: 1", f"{SECRET}\x00"], ids=ascii
)
def test_a_token_with_invalid_characters_is_refused_not_repeated(token: str, tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="the token has invalid characters") as caught:
        find_token(token, tmp_path, DEFAULT_SERVER, {})
    assert SECRET not in str(caught.value)


def test_an_invalid_token_file_is_named_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"admin\.token is empty"):
        find_token(None, write_token_file(tmp_path, " \n"), DEFAULT_SERVER, {})
    with pytest.raises(TokenError, match="cannot be read: it is not UTF-8 text") as caught:
        find_token(None, write_token_file(tmp_path, SECRET.encode() + b"\xff"), DEFAULT_SERVER, {})
    assert SECRET not in str(caught.value)
    with pytest.raises(TokenError, match="the token has invalid characters"):
        find_token(None, write_token_file(tmp_path, f"{SECRET}\nand another line"), DEFAULT_SERVER, {})


def test_an_unreadable_token_file_is_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / TOKEN_FILE).mkdir()
    with pytest.raises(TokenError, match="cannot be read: Is a directory"):
        find_token(None, tmp_path, DEFAULT_SERVER, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenError, match="cannot be read: Not a directory"):
        find_token(None, tmp_path / "file", DEFAULT_SERVER, {})


def test_the_data_directory_comes_from_the_option_then_the_environment() -> None:
    assert resolve_data_dir("/given", {"SHM_DATA_DIR": "/environment"}) == Path("/given")
    assert resolve_data_dir(None, {"SHM_DATA_DIR": "/environment"}) == Path("/environment")
    assert resolve_data_dir("~/shm", {}) == Path.home() / "shm"


def test_an_unknown_home_directory_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConsoleError, match="“~nobody-of-that-name/shm” is the directory of a user"):
        resolve_data_dir("~nobody-of-that-name/shm", {})


@pytest.mark.parametrize("user", [0, 1000])
def test_the_default_token_file_is_that_of_the_same_users_server(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert resolve_data_dir(None, {}) / TOKEN_FILE == Path(default_data_dir()) / SERVER_TOKEN_FILE
