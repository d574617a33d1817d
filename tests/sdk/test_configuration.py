"""Settings: where they come from, and what a wrong one does."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from shm_sdk import Client, Result
from shm_sdk.configuration import Configuration, ConfigurationError, configure, folder_name, official_slug

NEEDED = {"server_url": "https://metrics.example.com", "app_name": "Ledger", "app_version": "1.4.2"}
HOME = {"XDG_DATA_HOME": "/home-of-data", "LOCALAPPDATA": "/home-of-data"}


def configured(variables: dict[str, str] | None = None, /, **arguments: object) -> Configuration:
    return configure({**NEEDED, **arguments}, HOME | (variables or {}))


def test_every_setting_can_come_from_the_environment() -> None:
    assert configure(
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


def test_an_argument_counts_before_its_variable_and_an_empty_variable_not_at_all() -> None:
    assert configured({"SHM_ENVIRONMENT": "staging"}, environment="production").environment == "production"
    assert configured({"SHM_ENVIRONMENT": "staging"}, environment="").environment == ""
    assert configured({"SHM_REPORT_INTERVAL": ""}).report_interval == 3600


@pytest.mark.parametrize(
    ("given", "seconds"),
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
        (timedelta(days=400), 604800),
    ],
)
def test_an_interval_is_read_in_any_form_and_never_under_a_minute(given: object, seconds: float) -> None:
    assert configured(report_interval=given).report_interval == seconds


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
def test_a_wrong_setting_turns_telemetry_off_with_one_line_that_names_it(
    setting: str, value: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        configured({}, **{setting: value})
    with caplog.at_level(logging.DEBUG):
        telemetry = Client(**{**NEEDED, "data_dir": tmp_path, setting: value})  # type: ignore[arg-type]
        telemetry.start(first_report_after=0)
        assert telemetry.report_now().result is Result.OFF
        telemetry.stop(flush=True)
    lines = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert len(lines) == 1
    assert setting in lines[0]
    assert "secret" not in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_relative_data_dir_stays_where_it_was_when_the_host_changes_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configured(data_dir="state").data_dir == tmp_path / "state"


def test_without_a_data_dir_each_application_gets_one_of_its_own_in_the_users() -> None:
    names = ["Ledger", "Café Ledger", "日本", "中国", "C++", "C#", "../../etc", "CON"]
    folders = {configured(app_name=name).data_dir for name in names}
    assert len(folders) == len(names)
    assert all(folder.parent.name == "shm-telemetry" for folder in folders)


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
def test_official_identity_files_are_found_by_the_official_slug(name: str, slug: str) -> None:
    assert official_slug(name) == slug


def test_a_plain_name_is_its_own_folder() -> None:
    assert folder_name("Café Ledger") == "cafe-ledger"
