"""`shm ssh add`, `list` and `remove`, and the files with the keys."""

from pathlib import Path

import pytest

from shm.cli.ssh import host_key
from shm.cli.ssh.authorized_keys import parse_public_key
from shm.cli.ssh.console_process import terminal_encoding
from shm.core.errors import ConfigurationError
from tests.support.databases import fresh_database
from tests.support.shm_command import run_shm
from tests.support.ssh import NEEDS_CLIENT, USER, make_key


@NEEDS_CLIENT
def test_keys_are_added_listed_and_removed_with_a_token_each(postgres: str, tmp_path: Path) -> None:
    with fresh_database(postgres) as dsn:

        def run(*arguments: str) -> tuple[int, str, str]:
            completed = run_shm("ssh", *arguments, "--data-dir", str(tmp_path / "data"), SHM_DB_DSN=dsn)
            return completed.returncode, completed.stdout, completed.stderr

        make_key(tmp_path / "one")
        key = str(tmp_path / "one.pub")
        assert run("add", "Ana", key, "--role", "admin")[0] == 0
        status, _, errors = run("add", "Another", key)
        assert (status, "is already authorized" in errors, "Traceback" in errors) == (1, True, False)
        status, output, _ = run("list")
        assert (status, [line.split()[:2] for line in output.splitlines()[1:]]) == (0, [["Ana", "admin"]])
        file = tmp_path / "data/ssh/authorized_keys.json"
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert USER not in file.read_text()
        assert [run("remove", "Ana")[0] for _ in range(2)] == [0, 1]
        assert run_shm("token", "list", SHM_DB_DSN=dsn).stdout.count("Ana") == 0


@NEEDS_CLIENT
def test_what_is_no_safe_public_key_is_refused_in_a_sentence(tmp_path: Path) -> None:
    make_key(tmp_path / "good")
    make_key(tmp_path / "short", "-t", "rsa", "-b", "2040")
    make_key(tmp_path / "long", "-t", "rsa", "-b", "2048")
    line = (tmp_path / "good.pub").read_bytes()
    assert parse_public_key(b"\xef\xbb\xbf" + line).split() == line.decode().split()[:2]
    for content in (b"", b"\xff", (tmp_path / "good").read_bytes(), b'command="x" ' + line, line[:40]):
        with pytest.raises(ConfigurationError, match="This is not a public key"):
            parse_public_key(content)
    assert parse_public_key((tmp_path / "long.pub").read_bytes()).startswith("ssh-rsa ")
    with pytest.raises(ConfigurationError, match="is not safe enough"):
        parse_public_key((tmp_path / "short.pub").read_bytes())


def test_the_host_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    first = host_key.load_or_create(tmp_path)
    file = tmp_path / "ssh/host_key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert host_key.load_or_create(tmp_path).get_fingerprint() == first.get_fingerprint()
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="open to other users"):
        host_key.load_or_create(tmp_path)
    file.chmod(0o600)
    file.write_text("x")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        host_key.load_or_create(tmp_path)


@pytest.mark.parametrize(
    ("variables", "encoding"),
    [
        ({}, "utf-8"),
        ({"LANG": "de_DE.UTF-8"}, "utf-8"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.ISO-8859-15@euro"}, "iso8859-15"),
        ({"LANG": "C"}, "utf-8"),
        ({"LC_CTYPE": "x.rot13"}, "utf-8"),
        ({"LC_CTYPE": "x.nonsense"}, "utf-8"),
    ],
)
def test_the_encoding_is_that_of_the_clients_locale(variables: dict[str, str], encoding: str) -> None:
    assert terminal_encoding(variables) == encoding
