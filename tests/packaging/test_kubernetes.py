"""deploy/kubernetes.yml: valid by the schema of the API, and in agreement with the image and the server."""

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import shm.cli.backup
import shm.cli.export
from shm.core.settings import Settings
from shm.core.settings.fields import setting_specs
from shm.server.app import ROUTES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy" / "kubernetes.yml").read_text()
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all(TEXT))
OLDEST, NEWEST = "1.29", "1.36"


def manifest(kind: str, name: str | None = None) -> dict[str, Any]:
    """The only manifest of a kind, or the one with a name."""
    (found,) = [each for each in MANIFESTS if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def pods() -> Iterator[dict[str, Any]]:
    """The specifications of all pods."""
    yield manifest("Deployment")["spec"]["template"]["spec"]
    for name in ("shm-backup", "shm-erased"):
        yield manifest("CronJob", name)["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_valid(version: str) -> None:
    for each in MANIFESTS:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_server_accepts_its_settings(tmp_path: Path) -> None:
    environment = dict(manifest("ConfigMap")["data"])
    secrets = re.findall(r"--from-file=([\w-]+)", TEXT)
    for name, path in environment.items():
        if name.endswith("_FILE"):
            assert Path(path).parent == Path("/run/secrets/shm")
            assert Path(path).name in secrets
            (tmp_path / Path(path).name).write_text("host=x password=0123456789012345678901234567890123456789")
            environment[name] = str(tmp_path / Path(path).name)
    assert Settings.load(environment).dsn is not None
    file_variables = {name for spec in setting_specs(Settings).values() for name in spec.file_variables}
    assert {"SHM_DB_DSN_FILE", "SHM_ADMIN_TOKEN_FILE"} <= file_variables & environment.keys()


def test_the_probes_ask_for_existing_paths() -> None:
    (container,) = next(pods())["containers"]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths <= {pattern for pattern, _ in ROUTES}
    assert container["livenessProbe"]["httpGet"]["path"] == "/api/v1/healthcheck"  # true while the database is away


def test_a_pod_ends_after_its_requests() -> None:
    pod = next(pods())
    (container,) = pod["containers"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + Settings().drain_timeout.total_seconds()


def test_pods_have_no_privileges() -> None:
    (user,) = re.findall(r"^USER ([0-9]+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_selectors_match_the_servers_only() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    for name in ("shm-backup", "shm-erased"):
        job = manifest("CronJob", name)["spec"]["jobTemplate"]["spec"]
        assert job["template"]["metadata"]["labels"] != labels


def test_the_jobs_run_commands_of_shm() -> None:
    """Both write into the volume of the backups."""
    _, *jobs = pods()
    parsed, mounts = [], set()
    for pod, command in zip(jobs, (shm.cli.backup, shm.cli.export), strict=True):
        (container,) = pod["containers"]
        parser = argparse.ArgumentParser()
        command.configure(parser)
        assert f"shm.cli.{container['args'][0]}" == command.__name__
        parsed.append(parser.parse_args(container["args"][1:]))
        mounts |= {each["mountPath"] for each in container["volumeMounts"] if each["name"] == "backups"}
    (mount,) = mounts
    backup, export = parsed
    assert backup.directory.is_relative_to(mount)
    assert backup.keep == 7
    assert export.erased
    assert export.output.parent == Path(mount)


def test_the_jobs_share_their_volume_on_one_node() -> None:
    """Each pod matches its own term, so that the first one can be scheduled anywhere."""
    assert manifest("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    terms = []
    for name in ("shm-backup", "shm-erased"):
        template = manifest("CronJob", name)["spec"]["jobTemplate"]["spec"]["template"]
        (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        terms.append(term)
    assert terms[0] == terms[1]


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_page_restores_a_backup_by_a_job() -> None:
    """The filter of the page makes a valid job of the CronJob, whose shell runs commands of SHM."""
    page = (ROOT / "docs" / "deploy-kubernetes.md").read_text()
    ((command, jq),) = re.findall(r"restore='(.*?)'\n.*? \| jq --arg restore \"\$restore\" '([^']*)'", page, re.DOTALL)
    cron_job = manifest("CronJob", "shm-backup")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "restore", "namespace": "shm"},
        "spec": cron_job["spec"]["jobTemplate"]["spec"],
    }
    done = subprocess.run(
        ["jq", "--arg", "restore", command, jq], input=json.dumps(job), capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout)
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(made, version, strict=True)
    pod = made["spec"]["template"]["spec"]
    assert pod["volumes"][0]["secret"]["secretName"] == "shm-restored"
    (container,) = pod["containers"]
    assert container["command"] == ["sh", "-c"]
    assert container["args"] == [command]
    (backup,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert f"ls {backup['args'][backup['args'].index('--directory') + 1]}/*.dump" in command
