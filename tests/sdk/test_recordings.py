"""The real server answers the SDK's recorded requests as recorded. sdk/sdk_tests holds the test server to them."""

import runpy
from pathlib import Path

from tests.support.server_process import ServerProcess

REPLAY = Path(__file__).parents[2] / "sdk/sdk_tests/replay.py"


def test_the_server_answers_as_recorded(server: ServerProcess) -> None:
    answers = list(runpy.run_path(str(REPLAY))["replay"](server.url))
    assert len(answers) > 60
    for recording, answer in answers:
        expected = recording["answer"]
        assert (answer.status, answer.code) == (expected["status"], expected.get("code")), recording["name"]
        assert answer.members == expected.get("members", []), recording["name"]
        assert answer.verdicts == expected.get("verdicts", []), recording["name"]
        assert answer.last_sequences == expected.get("last_sequences", []), recording["name"]
