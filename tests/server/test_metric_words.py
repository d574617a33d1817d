"""`SHM_METRIC_WORDS`: one file decides the aggregates of all applications of a server."""

from collections.abc import Callable
from pathlib import Path

from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def test_a_server_uses_the_words_of_its_file(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text('[aggregates]\nmax = ["spitze"]\n[system]\nwords = ["speicher"]\n')
    server = serve(SHM_METRIC_WORDS=str(tmp_path / "words.toml"))
    for value in (3, 5):
        Install(server.url).enroll({"lastSpitze": value, "max_x": value, "speicher": value, "mail_rate": value})
    kpis = {kpi["key"]: kpi for kpi in server.get("applications/ledger/kpis").json()["kpis"]}
    assert {key: (kpi["kind"], kpi["value"]) for key, kpi in kpis.items()} == {
        "lastSpitze": ("business", 5),
        "max_x": ("business", 8),
        "speicher": ("system", 4),
        "mail_rate": ("business", 4),
    }
