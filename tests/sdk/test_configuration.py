"""The settings: their sources, their limits, and the effect of a wrong one."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from shm_sdk import Client, Result
from shm_sdk.configuration import Configuration, ConfigurationError, load_configuration
from shm_sdk.names import directory_name, official_slug

REQUIRED = {"server_url": "https://metrics.example.com", "app_name": "Ledger", "app_version": "1.4.2"}
USER_DIRECTORIES = {"XDG_DATA_HOME": "/home-of-data", "LOCALAPPDATA": "/home-of-data"}


def load(variables: dict[str, str] | None = None, /, **arguments: object) -> Configuration:
    return load_configuration({**REQUIRED, **arguments}, USER_DIRECTORIES | (variables or {}))


def test_every_setting_has_a_variable() -> None:
    assert load_configuration(
        {},
        {
            "SHM_SERVER_URL": "https://metrics.example.com/shm/",
            "SHM_APP_NAME": "Ledger",
            "SHM_APP_VERSION": "1.4.2",
            "SHM_DATA_DIR": "/var/lib/ledger",
            "SHM_ENVIRONMENT": "staging",
            "SHM_DEPLOYMENT_MODE": "docker",
            "SHM_REPORT_INTERVAL": "15m",
            "SHM_COLLECT_SYSTEM_METRICS": "false",
        },
    ) == Configuration(
        server_url="https://metrics.example.com/shm",
        app_name="Ledger",
        app_version="1.4.2",
        data_dir=Path("/var/lib/ledger").absolute(),
        environment="staging",
        deployment_mode="docker",
        report_interval=900,
        collect_system_metrics=False,
    )


def test_an_argument_overrides_its_variable() -> None:
    assert load({"SHM_ENVIRONMENT": "staging"}, environment="production").environment == "production"
    assert load({"SHM_ENVIRONMENT": "staging"}, environment="").environment == ""
    assert load({"SHM_REPORT_INTERVAL": ""}).report_interval == 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (120, 120),
        (90.5, 90.5),
        (timedelta(minutes=5), 300),
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        (" 1.5H ", 5400),
        ("600", 600),
        ("1d", 86400),
        (1, 60),
        ("10s", 60),
        (timedelta(days=400), 2592000),
    ],
)
def test_an_interval_is_parsed_and_clamped(value: object, seconds: float) -> None:
    assert load(report_interval=value).report_interval == seconds


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_url", None),
        ("server_url", "metrics.example.com"),
        ("server_url", "ftp://metrics.example.com"),
        ("server_url", "file:///etc/passwd"),
        ("server_url", "https://"),
        ("server_url", "https://metrics.example.com:port"),
        ("server_url", "https://[metrics"),
        ("server_url", "https://somebody:secret@metrics.example.com"),
        ("server_url", "https://metrics.example.com/?token=secret"),
        ("server_url", "https://metrics.example.com\r\nX-Evil: 1"),
        ("server_url", "https://metrics.example.com/a b"),
        ("server_url", b"https://metrics.example.com"),
        ("app_name", None),
        ("app_name", " "),
        ("app_name", "a\0b"),
        ("app_name", "x" * 257),
        ("app_name", "\ud800"),
        ("app_version", None),
        ("app_version", 1.4),
        ("environment", 7),
        ("data_dir", 7),
        ("data_dir", "a\0b"),
        ("data_dir", "\ud800"),
        ("data_dir", b"bytes"),
        ("report_interval", "soon"),
        ("report_interval", ""),
        ("report_interval", 0),
        ("report_interval", -60),
        ("report_interval", float("nan")),
        ("report_interval", float("inf")),
        ("report_interval", True),
        ("report_interval", ...),
        ("collect_system_metrics", "perhaps"),
    ],
    ids=repr,
)
def test_a_wrong_setting_turns_telemetry_off_with_one_warning(
    setting: str, value: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        load({}, **{setting: value})
    with caplog.at_level(logging.DEBUG):
        telemetry = Client(**{**REQUIRED, "data_dir": tmp_path, setting: value})  # type: ignore[arg-type]
        telemetry.start(first_report_after=0)
        assert telemetry.report_now().result is Result.OFF
        telemetry.stop(flush=True)
    lines = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert len(lines) == 1
    assert setting in lines[0]
    assert "secret" not in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_relative_data_dir_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(data_dir="state").data_dir == tmp_path / "state"


def test_each_application_has_its_own_default_data_dir() -> None:
    names = ["Ledger", "Café Ledger", "日本", "中国", "C++", "C#", "../../etc", "CON"]
    directories = {load(app_name=name).data_dir for name in names}
    assert len(directories) == len(names)
    assert all(directory.parent.name == "shm-telemetry" for directory in directories)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Café Ledger", "cafe-ledger"),
        ("  My__App - 2 ", "my-app-2"),
        ("Ünïcödé ÇÑ", "unicode-cn"),
        ("C++", "c"),
        ("日本", "app"),
        ("a.b/c", "abc"),
    ],
)
def test_the_slug_matches_the_official_clients(name: str, slug: str) -> None:
    assert official_slug(name) == slug


def test_a_plain_name_needs_no_digest() -> None:
    assert directory_name("Café Ledger") == "cafe-ledger"
