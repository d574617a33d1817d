"""Settings: read from the environment, overridden by flags, refused with a sentence."""

import argparse
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings, add_flags, setting_sources

DOCS = Path(__file__).parent.parent.parent / "docs" / "operating.md"


def test_the_environment_is_read_and_flags_override_it() -> None:
    settings = Settings.load({"PORT": "9000", "SHM_ACTIVE_WINDOW": "7d"}, {"port": "9001", "host": None})
    assert (settings.port, settings.active_window, settings.host) == (9001, timedelta(days=7), "127.0.0.1")


def test_the_original_name_of_the_database_comes_before_the_usual_one() -> None:
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
def test_a_bad_value_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.load({name: value})


def test_an_unknown_name_is_refused_with_the_likely_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean SHM_ACTIVE_WINDOW"):
        Settings.load({"SHM_ACTIV_WINDOW": "30d"})


def test_names_of_the_sdk_and_the_console_are_no_mistake() -> None:
    Settings.load({"SHM_TELEMETRY": "off", "SHM_SERVER": "http://x", "SHM_TOKEN": "t"})


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake() -> None:
    Settings.load(
        {"SHM_PORT": "tcp://10.0.0.1:80", "SHM_SERVICE_HOST": "10.0.0.1", "SHM_WEB_PORT_80_TCP_ADDR": "10.0.0.1"}
    )


def test_every_setting_but_the_secret_is_a_flag_with_its_reason() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    shown = " ".join(parser.format_help().split())
    for name, source in setting_sources().items():
        assert (f"--{name.replace('_', '-')} " in shown) == (name != "admin_token")
        if source.has_flag:
            assert " ".join(source.reason.split()) in shown


def test_every_setting_has_a_row_with_its_flag_default_and_reason() -> None:
    documented = re.findall(
        r"^\| (`(?:SHM_|PORT)[^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text(), re.MULTILINE
    )
    expected = []
    for each in fields(Settings):
        source, shown = each.metadata["source"], each.metadata["default_text"]
        flag = f"`--{each.name.replace('_', '-')}`" if source.has_flag else "none: it is a secret"
        default = f"`{shown}`" if shown else "–"
        if each.name == "data_dir":
            default = "your data folder; `/var/lib/shm` for root"
        expected.append((", ".join(f"`{name}`" for name in source.names), flag, default, source.reason))
    assert sorted(documented) == sorted(expected)
