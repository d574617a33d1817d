"""Settings: read from the environment, overridden by flags, refused with an error message."""

import argparse
import os
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings, SshSettings
from shm.core.settings.fields import setting_specs
from shm.core.settings.flags import add_flags
from shm.core.settings.parsers import parse_duration, parse_duration_or_zero, parse_positive_int

OPERATING_GUIDE = Path(__file__).parent.parent.parent / "docs" / "operating.md"


def test_the_environment_is_read_and_flags_override_it() -> None:
    settings = Settings.load({"PORT": "9000", "SHM_ACTIVE_WINDOW": "7d"}, {"port": "9001", "host": None})
    assert (settings.port, settings.active_window, settings.host) == (9001, timedelta(days=7), "127.0.0.1")


def test_the_originals_variable_precedes_database_url() -> None:
    assert Settings.load({"DATABASE_URL": "b", "SHM_DB_DSN": "a"}).dsn == "a"
    assert Settings.load({"DATABASE_URL": "b", "SHM_DB_DSN": ""}).dsn == "b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80a"),
        ("PORT", "70000"),
        ("SHM_ACTIVE_WINDOW", "30"),
        ("SHM_ACTIVE_WINDOW", "0d"),
        ("SHM_ACTIVE_WINDOW", "99999d"),
        ("SHM_MAX_BODY", "64q"),
        ("SHM_BATCH", "0"),
        ("SHM_LOG_LEVEL", "verbose"),
        ("SHM_BATCH", "-1"),
        ("SHM_DB_POOL", "500"),
        ("SHM_STATEMENT_TIMEOUT", "30d"),
    ],
)
def test_an_invalid_value_is_refused_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.load({name: value})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90), ("500ms", 0.5), ("1h15m30.918s", 4530.918), ("1.5h", 5400), ("250us", 0.00025), ("2d", 172800)],
)
def test_durations_of_go_are_read(text: str, seconds: float) -> None:
    settings = Settings.load({"SHM_RATELIMIT_ADMIN_PERIOD": text, "SHM_BODY_TIMEOUT": text})
    assert settings.ratelimit_admin_period == settings.body_timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["1m 30s", "m", "1", "-1s", "+1s", "1.s.", "s1", "1e3s", "99999999h", ""])
def test_other_durations_are_refused(text: str) -> None:
    for parse in (parse_duration, parse_duration_or_zero):
        with pytest.raises(ValueError, match="a duration such as"):
            parse(text)


def test_only_rate_limits_may_be_zero() -> None:
    limits = {name for name in setting_specs(Settings) if name.startswith("ratelimit_") and name != "ratelimit_enabled"}
    for name, spec in setting_specs(Settings).items():
        if name in limits:
            assert not spec.parse("0"), name
        elif spec.parse in (parse_duration, parse_positive_int):
            with pytest.raises(
                ValueError, match="a whole number above zero" if spec.parse is parse_positive_int else "a duration"
            ):
                spec.parse("0")


def test_an_unknown_variable_is_refused_with_the_most_similar_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean SHM_ACTIVE_WINDOW"):
        Settings.load({"SHM_ACTIV_WINDOW": "30d"})


def test_the_server_and_the_consoles_over_ssh_share_an_environment() -> None:
    environment = {"SHM_SSH_PORT": "2200", "SHM_SSH_IDLE_TIMEOUT": "8h", "SHM_ACTIVE_WINDOW": "7d"}
    assert Settings.load(environment).active_window == timedelta(days=7)
    settings = SshSettings.load(environment, {"port": "2201", "host": None})
    assert (settings.port, settings.idle_timeout, settings.host) == (2201, timedelta(hours=8), "127.0.0.1")
    with pytest.raises(ConfigurationError, match="SHM_SSH_PORT='x' is invalid"):
        SshSettings.load({"SHM_SSH_PORT": "x"}, {})


def test_variables_of_the_sdk_and_the_console_are_accepted() -> None:
    Settings.load({"SHM_TELEMETRY": "off", "SHM_SERVER": "http://x", "SHM_TOKEN": "t"})


def test_the_whole_environment_file_of_compose_is_accepted() -> None:
    names = set(re.findall(r"\$\{(SHM_\w+)", (OPERATING_GUIDE.parents[1] / "compose.yml").read_text()))
    assert names >= {"SHM_PUBLISH", "SHM_NAME"}
    Settings.load(dict.fromkeys(names, "x"))


def test_each_secret_can_be_in_a_file(tmp_path: Path) -> None:
    secrets = [spec for spec in setting_specs(Settings).values() if spec.is_secret]
    assert {"SHM_DB_DSN", "DATABASE_URL", "SHM_ADMIN_TOKEN"} <= {name for spec in secrets for name in spec.variables}
    assert all(spec.is_secret for spec in setting_specs(Settings).values() if not spec.has_flag)
    for name in ("SHM_DB_DSN", "DATABASE_URL"):
        (tmp_path / name).write_text("host=db password='x '\n")
        assert Settings.load({f"{name}_FILE": str(tmp_path / name)}).dsn == "host=db password='x '"
    (tmp_path / "token").write_text("x" * 30)
    assert Settings.load({"SHM_ADMIN_TOKEN_FILE": str(tmp_path / "token")}).admin_token == "x" * 30


@pytest.mark.parametrize("content", [None, b"", b"\n", b"x" * 5000, b"\xff\xfe", b"xxx\0xxx"])
def test_an_unusable_file_of_a_secret_is_named_without_its_content(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load({"SHM_ADMIN_TOKEN_FILE": str(file)})
    assert "SHM_ADMIN_TOKEN_FILE" in str(raised.value)
    assert str(file) in str(raised.value)
    assert "xxx" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + b"x" * 30, b"x" * 30 + b"\r\n", b"  " + b"x" * 30 + b" \n\n"],
    ids=["BOM", "CRLF", "spaces"],
)
def test_what_editors_add_to_a_secret_is_no_part_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert Settings.load({"SHM_ADMIN_TOKEN_FILE": f"{tmp_path}/secret\r"}).admin_token == "x" * 30


def test_a_secret_may_come_through_a_pipe(tmp_path: Path) -> None:
    """As of a shell's `<(...)`, which writes late."""
    os.mkfifo(tmp_path / "secret")
    command = f"sleep 0.3; printf '%s' {'x' * 15} >{tmp_path}/secret"
    with subprocess.Popen(["sh", "-c", command]):
        assert Settings.load({"SHM_ADMIN_TOKEN_FILE": str(tmp_path / "secret")}).admin_token == "x" * 15


def test_spaces_and_line_ends_around_values_are_no_part_of_them() -> None:
    settings = Settings.load(
        {"PORT": "8081\r", "SHM_ADMIN_TOKEN": f"{'x' * 30}\r", "SHM_HOST": " ", "DATABASE_URL": "\r"}
    )
    assert (settings.port, settings.admin_token, settings.host, settings.dsn) == (8081, "x" * 30, "127.0.0.1", None)


@pytest.mark.parametrize("name", ["SHM_DATA_DIR", "SHM_ADMIN_TOKEN", "SHM_DB_DSN", "SHM_UNCOUNTED_ENVIRONMENTS"])
def test_a_value_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is invalid: it is not a text in UTF-8"):
        Settings.load({name: os.fsdecode(b"/srv/x\xff")})


@pytest.mark.parametrize(
    ("value", "host"),
    [
        *(("[::]", "::"), ("::0", "::"), ("[::1]", "::1"), ("[0:0::1]", "::1"), ("10.0.0.1", "10.0.0.1")),
        *(("localhost", "localhost"), ("fe80::1%eth0", "fe80::1%eth0"), ("*", "::"), ("0", "0.0.0.0")),  # noqa: S104
    ],
)
def test_an_address_may_be_in_brackets(value: str, host: str) -> None:
    assert Settings.load({"SHM_HOST": value}).host == host


@pytest.mark.parametrize("value", ["[::1]:8080", "127.0.0.1:80", "[localhost]", "[]", "[::", "::1]"])
def test_a_host_with_a_port_or_half_a_bracket_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SHM_HOST=.* is invalid"):
        Settings.load({"SHM_HOST": value})


def test_a_secret_and_its_file_are_not_both_set(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x" * 30)
    with pytest.raises(ConfigurationError, match="SHM_ADMIN_TOKEN and SHM_ADMIN_TOKEN_FILE are both set"):
        Settings.load({"SHM_ADMIN_TOKEN": "y" * 30, "SHM_ADMIN_TOKEN_FILE": str(tmp_path / "secret")})


def test_the_guide_names_the_file_of_each_secret() -> None:
    guide = OPERATING_GUIDE.read_text()
    for spec in setting_specs(Settings).values():
        assert all(f"`{name}`" in guide for name in spec.file_variables)


def test_variables_of_a_kubernetes_service_called_shm_are_accepted() -> None:
    Settings.load(
        {"SHM_PORT": "tcp://10.0.0.1:80", "SHM_SERVICE_HOST": "10.0.0.1", "SHM_WEB_PORT_80_TCP_ADDR": "10.0.0.1"}
    )


def test_every_setting_except_the_secret_has_a_flag_with_its_reason() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    help_text = " ".join(parser.format_help().split())
    for name, spec in setting_specs(Settings).items():
        assert (f"--{name.replace('_', '-')} " in help_text) == (name not in {"admin_token", "github_token"})
        if spec.has_flag:
            assert " ".join(spec.reason.split()) in help_text
    assert "Default: ." not in help_text


def test_every_setting_has_a_row_with_its_flag_default_and_reason() -> None:
    documented = re.findall(
        r"^\| (`(?:SHM_|PORT|GITHUB_)[^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$",
        OPERATING_GUIDE.read_text(),
        re.MULTILINE,
    )
    expected = []
    for name, spec in (*setting_specs(Settings).items(), *setting_specs(SshSettings).items()):
        flag = f"`--{name.replace('_', '-')}`" if spec.has_flag else "none: it is a secret"
        default = f"`{spec.default}`" if spec.default else "–"
        if name == "data_dir":
            default = "your data folder; `/var/lib/shm` for root"
        expected.append((", ".join(f"`{name}`" for name in spec.variables), flag, default, spec.reason))
    assert sorted(documented) == sorted(expected)


def test_settings_are_grouped_as_in_the_guide() -> None:
    sections = re.split(r"^### (.*)$", OPERATING_GUIDE.read_text(), flags=re.MULTILINE)
    guide = {
        f"{group}.": set(re.findall(r"^\| `((?:SHM_|PORT|GITHUB_)\w*)", text, re.MULTILINE))
        for group, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    groups = {
        str(group.__doc__): {spec.variables[0] for spec in setting_specs(group).values()}
        for group in reversed(Settings.__bases__)
    }
    assert [(group, names) for group, names in guide.items() if group in groups] == list(groups.items())
