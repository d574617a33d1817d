"""The properties of Dockerfile and compose.yml that can be checked without a container."""

import argparse
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import make_dsn, parse_dsn

import shm.cli.backup
import shm.cli.export
import shm.cli.ssh.command
from shm.cli.ssh.key_directory import DIRECTORY
from shm.core.settings import Settings, SshSettings
from shm.core.settings.parsers import parse_duration
from shm.db.embedded.cluster_files import CONFIGURATION
from shm.db.embedded.programs import POSTGRES_MAJOR, programs_directory
from shm.db.embedded.role import SUPERUSER
from tests.support.databases import admin_cursor, empty_database, migrate, superuser_cursor
from tests.support.server_process import ServerProcess, free_port

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "compose.yml").read_text()
# A backslash at the end of a line continues an instruction; comments are on separate lines.
INSTRUCTIONS = [
    (line.split(" ", 1)[0], line.split(" ", 1)[1])
    for line in re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    .replace("\\\n", "")
    .splitlines()
    if line
]


@pytest.fixture
def server_service() -> dict[str, Any]:
    """The service `server`."""
    return service("server")


@pytest.fixture
def postgres_service() -> dict[str, Any]:
    """The service `postgres`."""
    return service("postgres")


def test_secrets_are_in_files_and_nowhere_else(postgres_service: dict[str, Any]) -> None:
    """The commands at the top of the file write them."""
    assert compose()["secrets"] == {name: {"file": f"./secrets/{name}"} for name in ("database-password", "dsn")}
    assert postgres_service["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/database-password"
    assert "POSTGRES_HOST_AUTH_METHOD" not in postgres_service["environment"]
    for name, each in compose()["services"].items():
        variables = each["environment"]
        assert not [key for key in variables if "PASSWORD" in key and not key.endswith("_FILE")], name
        for key, value in variables.items():
            if key.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in each["secrets"], name


def test_the_documented_commands_write_the_secrets(tmp_path: Path) -> None:
    commands = [line.removeprefix("#   ") for line in COMPOSE.splitlines() if line.startswith("#   ")]
    script = "\n".join(command for command in commands if "secrets" in command)
    subprocess.run(["bash", "-euc", f"umask 077; {script}"], cwd=tmp_path, check=True)
    password = (tmp_path / "secrets/database-password").read_text().strip()
    assert len(password) == 48
    dsn = Settings.load({"SHM_DB_DSN_FILE": str(tmp_path / "secrets/dsn")}).dsn
    assert dsn is not None
    assert parse_dsn(dsn) == {"host": "postgres", "dbname": "shm", "user": "shm", "password": password}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()} == {0o644}
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_servers_role_owns_its_schema_and_nothing_else(
    postgres_service: dict[str, Any], postgres: str, tmp_path: Path
) -> None:
    """The first start of the image runs the script with psql; another name stands for the role here."""
    assert "POSTGRES_USER" not in postgres_service["environment"]
    ((source, target),) = (config.values() for config in postgres_service["configs"])
    assert target == "/docker-entrypoint-initdb.d/role.sql"
    role = f"shm_{secrets.token_hex(4)}"
    script = compose()["configs"][source]["content"]
    assert "$" not in script  # Docker Compose would replace it
    with empty_database(postgres) as dsn:
        script = re.sub(r"\bDATABASE shm\b", f"DATABASE {parse_dsn(dsn)['dbname']}", script)
        script = re.sub(r"\bshm\b", role, script).replace("ALTER ROLE postgres", f"ALTER ROLE {role}")
        psql = [str(programs_directory(None) / "psql"), "--no-psqlrc", "-v", "ON_ERROR_STOP=1"]
        superuser = make_dsn(dsn, user=SUPERUSER)
        (tmp_path / "password").write_text('it\'s "any" \\ $text\n')
        script = script.replace("/run/secrets/database-password", str(tmp_path / "password"))
        subprocess.run([*psql, superuser], input=script, text=True, check=True, capture_output=True)
        with admin_cursor(make_dsn(dsn, user=role)) as cursor:
            for sql in ("CREATE SCHEMA other", "CREATE DATABASE other", "CREATE ROLE other", "CREATE TEMP TABLE a ()"):
                with pytest.raises(InsufficientPrivilege):
                    cursor.execute(sql)
        migrate(make_dsn(dsn, user=role))
        with superuser_cursor(dsn) as cursor:
            cursor.execute(f"ALTER SCHEMA public OWNER TO {SUPERUSER}; DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_server_binds_to_localhost_and_the_database_to_none(
    server_service: dict[str, Any], postgres_service: dict[str, Any]
) -> None:
    assert server_service["ports"] == ["127.0.0.1:8080:8080"]
    assert "ports" not in postgres_service
    assert service("second")["ports"] == []
    assert "network_mode" not in postgres_service


def test_the_server_waits_until_the_database_is_healthy(
    server_service: dict[str, Any], postgres_service: dict[str, Any]
) -> None:
    assert server_service["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert {"pg_isready", "--host=127.0.0.1"} <= set(postgres_service["healthcheck"]["test"])


def test_the_server_accepts_every_setting_it_is_given(server_service: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("host=postgres")
    environment = image_environment() | server_service["environment"] | {"SHM_DB_DSN_FILE": str(tmp_path / "dsn")}
    settings = Settings.load(environment)
    assert list(map(str, settings.trusted_proxies)) == [compose()["networks"]["default"]["ipam"]["config"][0]["subnet"]]
    assert settings.host == "0.0.0.0"  # noqa: S104 - the container's own address
    assert settings.port == 8080


def test_the_admin_token_and_the_data_are_on_volumes(
    server_service: dict[str, Any], postgres_service: dict[str, Any]
) -> None:
    data_dir = image_environment()["SHM_DATA_DIR"]
    assert server_service["volumes"] == [f"data:{data_dir}", f"ssh:{data_dir}/ssh"]
    assert ("VOLUME", data_dir) in INSTRUCTIONS
    assert postgres_service["image"] == f"postgres:{POSTGRES_MAJOR}"
    assert postgres_service["volumes"] == ["postgres:/var/lib/postgresql"]
    used = {volume.split(":")[0] for each in compose()["services"].values() for volume in each["volumes"]}
    assert {name for name in used if not name.startswith("./")} == set(compose()["volumes"])


def test_the_databases_log_contains_no_data_of_installs(postgres_service: dict[str, Any]) -> None:
    embedded = {line.replace(" ", "") for line in CONFIGURATION.splitlines() if line.startswith("log_")}
    options = set(postgres_service["command"][2::2])
    assert {"log_error_verbosity=terse", "log_min_error_statement=panic"} <= options & embedded


def test_a_crashed_database_container_exits_and_is_restarted(postgres_service: dict[str, Any]) -> None:
    assert "restart_after_crash=off" in postgres_service["command"]
    assert "restart_after_crash = off" in CONFIGURATION.splitlines()
    assert postgres_service["restart"] == "unless-stopped"


def test_the_server_has_no_privileges_in_its_container(server_service: dict[str, Any]) -> None:
    (user,) = (value for name, value in INSTRUCTIONS if name == "USER")
    assert re.fullmatch(r"[1-9][0-9]+:[1-9][0-9]+", user)
    assert "user" not in server_service
    assert "privileged" not in server_service
    assert server_service["read_only"] is True
    assert server_service["cap_drop"] == ["ALL"]
    assert server_service["security_opt"] == ["no-new-privileges:true"]


def test_stop_grace_period_exceeds_the_drain_timeout(server_service: dict[str, Any]) -> None:
    assert ("STOPSIGNAL", "SIGTERM") in INSTRUCTIONS
    assert parse_duration(server_service["stop_grace_period"]) > Settings().drain_timeout


def test_the_health_check_fails_without_a_server(server: ServerProcess) -> None:
    (value,) = (value for name, value in INSTRUCTIONS if name == "HEALTHCHECK")
    program, *arguments = json.loads(value.partition(" CMD ")[2])
    assert program == "python"

    def status(port: int, host: str = "") -> int:
        environment = {"PORT": str(port), "SHM_HOST": host, "http_proxy": "http://127.0.0.1:1"}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, check=False
        ).returncode

    assert [status(server.port, host) for host in ("", "127.0.0.1", "0.0.0.0", "::", "[::]")] == [0] * 5  # noqa: S104
    assert status(server.port, "::1") == 1
    assert status(free_port()) == 1


def test_the_build_context_contains_only_what_is_copied() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    copied = [
        source
        for name, value in INSTRUCTIONS
        if name == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_every_dependency_of_the_image_is_locked() -> None:
    for name, value in INSTRUCTIONS:
        for command in value.split("&&") if name == "RUN" else ():
            if "pip " in command and " install " in command:
                assert "--require-hashes" in command or {"--no-index", "--no-deps"} <= set(command.split()), command


def test_docker_accepts_compose_yml() -> None:
    try:
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", "--file", str(ROOT / "compose.yml"), "--profile", "*", "config", "--format", "json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "SHM_"))}
    completed = subprocess.run(command, env=environment, capture_output=True, check=True)
    server = json.loads(completed.stdout)["services"]["server"]
    assert server["ports"][0]["host_ip"] == "127.0.0.1"


def test_compose_yml_follows_the_specification() -> None:
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose()))
    parsed.validate()
    assert set(parsed.service_names()) == {"server", "second", "ssh", "backup", "caddy", "postgres"}


def test_every_container_is_bounded() -> None:
    for name, each in compose()["services"].items():
        assert each["logging"]["options"]["max-size"], name
        assert each["logging"]["options"]["max-file"], name
        assert each["mem_limit"], name
        assert each["pids_limit"], name
        assert each["ulimits"]["nofile"] >= 65536, name
        assert each["restart"] == "unless-stopped", name
        assert each["security_opt"] == ["no-new-privileges:true"], name


def test_only_the_server_and_its_database_start_without_a_profile() -> None:
    services = compose()["services"]
    assert {name for name, each in services.items() if "profiles" not in each} == {"server", "postgres"}
    assert all(each["profiles"] == [name] for name, each in services.items() if "profiles" in each)


def test_the_backup_container_runs_the_command() -> None:
    """Its first backup here, as the image's shell would run it."""
    backup = service("backup")
    ((command,),) = (backup["command"],)
    (arguments,) = re.findall(r"while shm (backup .*?);", command)
    parser = argparse.ArgumentParser()
    shm.cli.backup.configure(parser)
    parsed = parser.parse_args(arguments.split()[1:])
    assert backup["volumes"] == [f"backups:{parsed.directory}"]
    assert parsed.keep == 7
    (arguments,) = re.findall(r"^ *shm (export .*)$", command, re.MULTILINE)
    parser = argparse.ArgumentParser()
    shm.cli.export.configure(parser)
    export = parser.parse_args(arguments.split()[1:])
    assert (export.erased, export.output.parent) == (True, parsed.directory)
    assert subprocess.run(["sh", "-n", "-c", command.replace("$$", "$")], check=False).returncode == 0
    owned = [value for name, value in INSTRUCTIONS if name == "RUN" and "--owner=shm" in value]
    assert str(parsed.directory) in owned[0].split()  # a new volume gets the owner of the image's directory


def test_the_ssh_container_has_only_the_keys(server_service: dict[str, Any]) -> None:
    """It runs `shm ssh` on the keys that `shm ssh add` writes in the server's container."""
    ssh = service("ssh")
    assert ssh["secrets"] == []
    volume = f"ssh:{image_environment()['SHM_DATA_DIR']}/{DIRECTORY}"
    assert ssh["volumes"] == [volume]
    assert volume in server_service["volumes"]
    owned = [value for name, value in INSTRUCTIONS if name == "RUN" and "--owner=shm" in value]
    assert volume.partition(":")[2] in owned[0].split()
    Settings.load(image_environment() | ssh["environment"])
    settings = SshSettings.load(image_environment() | ssh["environment"], {})
    assert settings.host == "0.0.0.0"  # noqa: S104 - the container's own address
    assert settings.server == f"http://server:{Settings().port}"
    assert ssh["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert f"('127.0.0.1', {settings.port})" in ssh["healthcheck"]["test"][-1]
    for key in ("read_only", "cap_drop", "init"):
        assert ssh[key] == server_service[key]
    parser = argparse.ArgumentParser()
    shm.cli.ssh.command.configure(parser)
    assert ssh["command"][0] == "ssh"
    assert parser.parse_args(ssh["command"][1:]).key_command is None


def test_the_proxy_gets_the_documented_configuration() -> None:
    caddy = service("caddy")
    assert "./deploy/Caddyfile:/etc/caddy/Caddyfile:ro" in caddy["volumes"]
    text = (ROOT / "deploy/Caddyfile").read_text()
    used = set(re.findall(r"\{\$(\w+):", text))
    assert used == caddy["environment"].keys() == {"SHM_NAME", "SHM_UPSTREAMS"}


def compose() -> dict[str, Any]:
    """The parsed compose.yml, with the defaults of its variables."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE)
    assert "${" not in text
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def service(name: str) -> dict[str, Any]:
    """A service of compose.yml."""
    parsed: dict[str, Any] = compose()["services"][name]
    return parsed


def image_environment() -> dict[str, str]:
    """The variables that the image sets by ENV."""
    return dict(pair.split("=", 1) for name, value in INSTRUCTIONS if name == "ENV" for pair in shlex.split(value))
