"""The workflow of a release, as far as it can be checked without running it."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github/workflows/release.yml").read_text()
WORKFLOW: dict[str, Any] = yaml.safe_load(TEXT)


def test_nothing_is_published_before_the_tests_pass() -> None:
    jobs = WORKFLOW["jobs"]
    assert [step.get("run", "") for step in jobs["tests"]["steps"]][-1].endswith("bash .ci/run")
    assert {name for name, job in jobs.items() if job.get("needs") == "tests"} == set(jobs) - {"tests"}


def test_jobs_have_only_the_permissions_that_they_name() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for name, job in WORKFLOW["jobs"].items():
        assert job["timeout-minutes"], name
        writes = {scope for scope, level in job.get("permissions", {}).items() if level == "write"}
        expected = {"tests": set(), "image": {"packages", "id-token"}, "distributions": {"contents"}}
        assert writes == expected[name]


def test_the_image_is_built_for_two_platforms_from_one_base_and_signed() -> None:
    steps = WORKFLOW["jobs"]["image"]["steps"]
    (build,) = [step["with"] for step in steps if step.get("uses", "").startswith("docker/build-push-action@")]
    assert build["platforms"].split(",") == ["linux/amd64", "linux/arm64"]
    assert build["build-args"].startswith("BASE=")
    assert re.search(r"^ARG BASE=\S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert any("cosign sign" in step.get("run", "") and "outputs.digest" in step["run"] for step in steps)


def test_actions_have_a_version() -> None:
    uses = re.findall(r"uses: (\S+)", TEXT)
    assert uses
    assert all(re.search(r"@v\d+$", each) for each in uses)
