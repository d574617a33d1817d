"""The configuration file: what it accepts, the sentence for each mistake, and how the console changes it."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_tui.actions import ACTIONS
from shm_tui.app import ConsoleApp
from shm_tui.config import contexts
from shm_tui.config.contexts import Target, context_target, first_target
from shm_tui.config.file import MAX_CONFIG_BYTES, Config, Context, load_config, parse_config
from shm_tui.config.kept_tokens import KeptTokens
from shm_tui.config.keys import KEY_NAMES, config_name, with_keys
from shm_tui.config.writer import save_theme, save_view
from shm_tui.errors import ConfigError, ConsoleError, MissingTokenError, TokenError
from shm_tui.model.place import DEFAULT_APP, Place, PlaceError
from shm_tui.model.saved_views import SavedViews
from tests.support.shm_command import run_shm

FILE = Path("console.toml")
EXAMPLE = """\
# my servers
default_context = "prod"
theme = "shm-light"  # for the day

[contexts.prod]
url = "https://metrics.example.com/"
token_file = "prod.token"

[contexts.local]
url = "http://127.0.0.1:8080"

[keys]
pause = "f5"
move_next = ["n", "down"]

[views.ledger]
big = "instances sort=-invoices_sent /env:prod"

[views."*"]
waiting = "instances /status:pending"
"""
SECRET = "shm_hunter2-hunter2-hunter2"


def test_a_file_with_everything_is_read() -> None:
    config = parse_config(FILE, EXAMPLE.encode())
    assert config.default_context == "prod"
    assert config.theme == "shm-light"
    assert config.contexts == {
        "prod": Context("https://metrics.example.com", "prod.token"),
        "local": Context("http://127.0.0.1:8080"),
    }
    assert config.keys == {"pause": ("f5",), "move_next": ("n", "down")}
    assert config.views.names("ledger") == ["big", "waiting"]


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none" / FILE) == Config(tmp_path / "none" / FILE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("theme = \n", "is not TOML: Invalid value (at line 1"),
        ("a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        ("colour = 'shm'\n", "the file: object contains unknown field `colour`"),
        ("theme = 3\n", "theme: expected `str`, got `int`"),
        ("theme = 'neon'\n", "theme: there is no theme “neon”"),
        ("contexts = 3\n", "contexts: expected `object`, got `int`"),
        ("default_context = 'x'\n[contexts.prod]\nurl='http://a'\n", "default_context: there is no context “x”: prod"),
        ("[contexts.prod]\n", "contexts.prod: object missing required field `url`"),
        ("[contexts.prod]\nurl = 'prod.example.com'\n", "contexts.prod.url: “prod.example.com” is not a server's"),
        ("[contexts.prod]\nurl = 'http://a'\nport = 3\n", "contexts.prod: object contains unknown field `port`"),
        ("[contexts.prod]\nurl = 'http://a'\ntoken_file = 3\n", "contexts.prod.token_file: expected `str`, got `int`"),
        ("[contexts.prod]\nurl = 'http://a'\ntoken_file='b'\ntoken_command=['c']\n", "exclude each other"),
        ("[contexts.'a b']\nurl = 'http://a'\n", "contexts.a b: a name has letters"),
        ("[keys]\npauze = 'x'\n", "keys.pauze: there is no action “pauze”; is it pause?"),
        ("[keys]\npause = 'ctrl+meta+x'\n", "keys.pause: there is no key “ctrl+meta+x”"),
        ("[keys]\npause = 'r'\n", "keys.pause: the key r is that of reload"),
        ("[keys]\npause = '?'\n", "keys.pause: the key ? is that of help"),
        ("[keys]\npause = 'x'\nreload = ['z', 'x']\n", "the key x is that of pause"),
        ("[keys]\npause = []\n", "keys.pause: expected one to 8 keys"),
        ("[keys]\npause = [3]\n", "keys.pause[0]: expected `str`, got `int`"),
        ("[keys]\nnext_pane = 'n'\n", "keys.next_pane: n is needed for typing"),
        ("[views.ledger]\nversions = 'fleet'\n", "views.ledger.versions: “versions” is a view or a range already"),
        ("[views.ledger]\n'a b' = 'fleet'\n", "views.ledger.a b: a name has small letters"),
        ("[views.ledger]\nbig = 'kiosk/versions'\n", "views.ledger.big: a saved view is of the application"),
        ("[views.ledger]\nbig = 'versions/1/2/3'\n", "views.ledger.big: versions has no argument"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(FILE, text.encode())
    assert str(caught.value).startswith("console.toml")
    assert message in str(caught.value)


def test_a_token_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"contexts\.prod\.url") as caught:
        parse_config(FILE, f"[contexts.prod]\nurl = 'https://:{SECRET}@host'\n".encode())
    assert SECRET not in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet="[]contexskyvw.'\"= \n{},#1", max_size=80).map(str.encode))
def test_any_content_is_valid_or_refused(content: bytes) -> None:
    try:
        parse_config(FILE, content)
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_a_bad_file_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / FILE).write_text("[keys]\npause = 'r'\n")
    completed = run_shm("console", "--once", SHM_TOKEN=SECRET, XDG_CONFIG_HOME=str(tmp_path))
    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert line.endswith("shm/console.toml: keys.pause: the key r is that of reload; give that another one, too")


@pytest.mark.parametrize("content", [b"x" * (MAX_CONFIG_BYTES + 1), b"\xff\xfe"])
def test_what_is_no_text_or_too_large_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"256 KiB|UTF-8"):
        parse_config(FILE, content)


# Keys.


def test_every_action_has_a_name_of_its_own() -> None:
    names = [config_name(action) for action in ACTIONS]
    assert len(set(names)) == len(names)
    assert {"pause", "view_fleet", "move_next", "decide_erase", "range_24h"} <= set(names)
    assert all(name.isidentifier() for name in names)


def test_every_action_can_be_bound_to_another_key() -> None:
    free = sorted(name for name in KEY_NAMES if name.startswith("f"))
    for action in ACTIONS:
        config = parse_config(FILE, f"[keys]\n{config_name(action)} = '{free[0]}'\n".encode())
        (changed,) = [each for each in with_keys(config.keys) if each.name == action.name]
        assert (changed.keys, changed.key_label) == (free[0], free[0].upper())


def test_two_actions_can_exchange_their_keys() -> None:
    config = parse_config(FILE, b"[keys]\npause = 'r'\nreload = 'p'\n")
    assert config.keys == {"pause": ("r",), "reload": ("p",)}


def test_the_priority_of_keys_that_open_prompts_is_kept() -> None:
    assert {binding.id for binding in ConsoleApp.BINDINGS if binding.priority} == {  # type: ignore[union-attr]
        *("next_pane", "filter", "command", "command_palette")
    }


# Saved views.

VIEWS = SavedViews({"ledger": {"big": "instances sort=-sent /env:prod"}, "*": {"waiting": "instances /status:pending"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("big", Place("ledger", filter="env:prod", sort="-sent")),
        ("big 7d", Place("ledger", filter="env:prod", sort="-sent", range="7d")),
        ("big /env:dev", Place("ledger", filter="env:dev", sort="-sent")),
        ("waiting", Place(None, filter="status:pending")),
        ("versions", Place("ledger", "versions")),
        ("/big", Place("ledger", filter="big")),
        ("prod", Place(DEFAULT_APP, context="prod")),
        ("prod/kiosk/versions 3m", Place("kiosk", "versions", range="3m", context="prod")),
        ("prod/ledger/big", Place("ledger", filter="env:prod", sort="-sent", context="prod")),
        ("prod 7d", Place(DEFAULT_APP, range="7d", context="prod")),
        ("prod/*/events", Place(None, "events", context="prod")),
    ],
)
def test_a_text_is_a_saved_view_a_context_or_a_place(text: str, expected: Place) -> None:
    assert VIEWS.parse(text, Place("ledger"), (), ["prod"]) == expected


def test_an_application_precedes_a_context_of_its_name() -> None:
    assert VIEWS.parse("prod/versions", Place(), ["prod"], ["prod"]) == Place("prod", "versions")
    with pytest.raises(PlaceError):
        VIEWS.parse("nobody", Place("ledger"), ["ledger"], ["prod"])


def test_a_saved_view_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / FILE
    path.parent.mkdir()
    path.write_text(EXAMPLE)
    place = Place("ledger", "metric", ("mail/sent now",), 'a "b" \\', "-x", "3m")
    config = save_view(path, place, "chart")
    save_view(path, Place(None, "fleet"), "all-apps")
    assert config.views.parse("chart", Place("ledger")) == place
    text = path.read_text()
    assert all(line in text for line in EXAMPLE.splitlines())
    assert load_config(path).views.names("ledger") == ["all-apps", "big", "chart", "waiting"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [FILE.name]


def test_the_first_saved_theme_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shm" / FILE
    assert save_theme(path, "nord").theme == "nord"
    assert path.read_text() == 'theme = "nord"\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_saved_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text("theme = 'neon'\n")
    with pytest.raises(ConfigError, match="neon"):
        save_view(path, Place("ledger"), "big")
    assert path.read_text() == "theme = 'neon'\n"
    path.write_text("views = {ledger = {a = 'fleet'}}\n")  # an inline table
    with pytest.raises(ConfigError, match="is a view or a range already"):
        save_view(path, Place("ledger"), "versions")
    assert path.read_text() == "views = {ledger = {a = 'fleet'}}\n"
    assert save_view(path, Place("ledger", "versions"), "b").views.names("ledger") == ["a", "b"]
    blocked = tmp_path / "file" / FILE
    blocked.parent.write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        save_theme(blocked, "nord")


def test_a_link_to_the_file_remains_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "dotfiles.toml", tmp_path / FILE
    target.write_text("theme = 'nord'\n")
    link.symlink_to(target)
    save_theme(link, "shm")
    assert link.is_symlink()
    assert load_config(target).theme == "shm"


# Tokens.


def arguments(**options: object) -> Namespace:
    """The arguments of the command."""
    defaults = {"server": None, "token": None, "context": "", "data_dir": None}
    return Namespace(**(defaults | {"once": False, "screenshot": None, "restricted": False} | options))


def print_command(*lines: str, status: int = 0) -> Sequence[str]:
    """A command that prints lines."""
    return [sys.executable, "-c", f"print({chr(10).join(lines)!r}); raise SystemExit({status})"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two contexts: one with a token's file, and one with a command."""
    (tmp_path / "prod.token").write_text(f"{SECRET}-of-prod\n")
    servers = {
        "prod": Context("https://prod.example.com", "prod.token"),
        "staging": Context(
            "https://staging.example.com", token_command=tuple(print_command(f"{SECRET}-of-staging", "x"))
        ),
        "bare": Context("https://bare.example.com"),
    }
    return Config(tmp_path / FILE, default_context="prod", contexts=servers)


@pytest.fixture
def kept(tmp_path: Path) -> KeptTokens:
    """No kept tokens yet."""
    return KeptTokens(tmp_path / "shm" / "tokens.json")


def test_the_precedence_of_servers_and_their_tokens(config: Config, kept: KeptTokens) -> None:
    """Option, variable, default context; the token of a context is never sent to another server."""
    prod = Target("https://prod.example.com", f"{SECRET}-of-prod", "prod")
    assert first_target(arguments(), config, kept, {}) == prod
    assert first_target(arguments(), config, kept, {"SHM_TOKEN": "of-the-environment"}) == prod
    environ = {"SHM_SERVER": "https://env.example.com", "SHM_TOKEN": "of-the-environment"}
    assert first_target(arguments(), config, kept, environ) == Target("https://env.example.com", "of-the-environment")
    assert first_target(arguments(context="staging"), config, kept, environ) == Target(
        "https://staging.example.com", f"{SECRET}-of-staging", "staging"
    )
    assert first_target(arguments(server="https://x.example.com"), config, kept, {}).token is None
    with pytest.raises(ConfigError, match="no context “other”: prod, staging, bare"):
        first_target(arguments(context="other"), config, kept, {})
    with pytest.raises(MissingTokenError):
        first_target(arguments(context="bare", once=True), config, kept, {})


def test_a_context_in_the_console_gets_no_token_of_the_environment(
    config: Config, kept: KeptTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHM_TOKEN", "of-the-environment")
    assert context_target("bare", config, kept).token is None
    kept.keep("https://bare.example.com", "typed")
    assert context_target("bare", config, kept).token == "typed"
    assert context_target("staging", config, kept).token == f"{SECRET}-of-staging"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (print_command(SECRET, status=3), "ended with status 3"),
        (print_command(), "printed nothing"),
        (["/nonexistent/command"], "cannot be run: No such file"),
        (print_command("x" * 100_000), "printed more than 16 KiB"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], "did not end within"),
        (print_command("two words"), "invalid characters"),
    ],
)
def test_a_failing_token_command_is_told_without_its_output(
    command: Sequence[str], message: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "did not end" in message:
        monkeypatch.setattr(contexts, "TOKEN_COMMAND_TIMEOUT_S", 0.2)
    broken = Config(config.path, contexts={"a": Context("https://a", token_command=tuple(command))})
    started_at = time.monotonic()
    with pytest.raises(TokenError, match=message) as caught:
        context_target("a", broken, None)
    assert SECRET not in str(caught.value)
    assert time.monotonic() - started_at < 60


def test_kept_tokens_are_for_their_user_only(kept: KeptTokens) -> None:
    assert kept.find("https://a") is None
    kept.keep("https://a", "1")
    kept.keep("https://b", "2")
    assert (kept.find("https://a"), kept.find("https://b"), kept.find("https://c")) == ("1", "2", None)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.forget("https://a")
    assert not kept.forget("https://a")
    assert kept.find("https://b") == "2"
    kept.path.chmod(0o644)
    with pytest.raises(TokenError, match="chmod 600"):
        kept.find("https://b")
    kept.path.chmod(0o600)
    kept.path.write_text("{")
    with pytest.raises(TokenError, match="remove it"):
        kept.find("https://b")


def test_consoles_that_keep_tokens_at_once_keep_all(kept: KeptTokens) -> None:
    servers = [f"https://{number}" for number in range(8)]
    with ThreadPoolExecutor(len(servers)) as threads:
        list(threads.map(lambda server: KeptTokens(kept.path).keep(server, "1"), servers))
    assert [kept.find(server) for server in servers] == ["1"] * len(servers)


def test_a_token_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "shm").write_text("")
    with pytest.raises(ConsoleError, match="cannot be written: File exists"):
        KeptTokens(tmp_path / "shm" / "tokens.json").keep("https://a", "1")
