"""Each alert of deploy/prometheus-alerts.yml fires for its fault and none for a healthy server, as promtool finds."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus-alerts.yml"
STEP_MINUTES = 5  # between two samples and two evaluations
LONG, SHORT = 30 * 12, 4 * 12  # steps of a test: alerts that compare days, and the others
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def constant(value: float) -> str:
    """The values of a series that does not change."""
    return f"{value}x{LONG}"


def growing(per_minute: float) -> str:
    """The values of a counter."""
    return f"0+{per_minute * STEP_MINUTES}x{LONG}"


def histogram(name: str, slow: float, fast: float) -> dict[str, str]:
    """The buckets of a histogram: observations a minute above and below the limits of the alerts."""
    counts = {"0.05": fast, "0.5": fast, "2.5": fast + slow, "+Inf": fast + slow}
    return {f'{name}_bucket{{le="{bound}"}}': growing(count) for bound, count in counts.items()}


HEALTHY = {
    'shm_build_info{version="0.1.0"}': constant(1),
    "shm_intake_batch_snapshots_sum": growing(50),
    'shm_intake_queue_snapshots{worker="0"}': constant(3),
    **histogram("shm_intake_batch_commit_seconds", slow=0, fast=100),
    **histogram("shm_event_loop_lag_seconds", slow=0, fast=240),
    'shm_refusals_total{code="bad_signature"}': growing(2),
    'shm_requests_total{handler="register",status="201"}': growing(1),
    'shm_installs{status="active"}': constant(1000),
    'shm_installs{status="pending"}': constant(0),
    "shm_series_lag_seconds": constant(2),
    "shm_background_round_age_seconds": constant(11),
    'shm_feed_median_lag_seconds{worker="0"}': constant(0.3),
    "shm_database_full_seconds": constant(90 * 86_400),
    "shm_disk_free_bytes": constant(50 * 1024**3),
    'shm_open_files{worker="0"}': constant(60),
    'shm_open_files_limit{worker="0"}': constant(65_536),
}
FAULTS: dict[str, dict[str, str]] = {
    "ShmDown": {'shm_build_info{version="0.1.0"}': f"1x{SHORT - 12} _x12"},
    "ShmIntakeStopped": {"shm_intake_batch_snapshots_sum": f"0+250x{LONG - 60} {250 * (LONG - 60)}x60"},
    "ShmQueueFills": {'shm_intake_queue_snapshots{worker="0"}': constant(5_000)},
    "ShmCommitsSlow": histogram("shm_intake_batch_commit_seconds", slow=10, fast=100),
    "ShmEventLoopSaturated": histogram("shm_event_loop_lag_seconds", slow=100, fast=140),
    "ShmRefusals": {'shm_refusals_total{code="bad_signature"}': growing(120)},
    "ShmRegistrationFlood": {'shm_requests_total{handler="register",status="201"}': growing(20)},
    "ShmInstallsAwaitApproval": {'shm_installs{status="pending"}': constant(4)},
    "ShmInstallsLost": {'shm_installs{status="active"}': f"1000x{LONG - 24} 700x24"},
    "ShmChartsLate": {"shm_series_lag_seconds": constant(900)},
    "ShmBackgroundStopped": {"shm_background_round_age_seconds": growing(60)},
    "ShmFeedsLate": {'shm_feed_median_lag_seconds{worker="0"}': constant(60)},
    "ShmDiskFull": {"shm_database_full_seconds": constant(86_400)},
    "ShmDiskSpaceLow": {"shm_disk_free_bytes": constant(1024**3)},
    "ShmOpenFilesLow": {'shm_open_files{worker="0"}': constant(60_000)},
}


COMPARE_DAYS = {"ShmIntakeStopped", "ShmInstallsLost", "ShmInstallsAwaitApproval", "healthy"}


def case(name: str, fault: dict[str, str], expected: set[str]) -> dict[str, Any]:
    """A test of promtool: the alerts that fire at the end."""
    firing = 'count by (alertname) (ALERTS{alertstate="firing"} > bool 0)'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)]
    series = [{"series": each, "values": values} for each, values in (HEALTHY | fault).items()]
    steps = LONG if name in COMPARE_DAYS else SHORT
    check = {"expr": firing, "eval_time": f"{(steps - 1) * STEP_MINUTES}m", "exp_samples": samples}
    return {"name": name, "interval": f"{STEP_MINUTES}m", "input_series": series, "promql_expr_test": [check]}


def test_every_alert_has_a_fault() -> None:
    rules = yaml.safe_load(RULES.read_text())
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == FAULTS.keys()


def test_each_fault_fires_its_alert_and_no_other(tmp_path: Path) -> None:
    cases = [case("healthy", {}, set()), *(case(alert, fault, {alert}) for alert, fault in FAULTS.items())]
    tests = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_MINUTES}m", "tests": cases}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
