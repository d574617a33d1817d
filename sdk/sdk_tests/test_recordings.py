"""The test server answers recorded requests as the real server, which another test holds to the same recordings."""

import runpy
from pathlib import Path

from shm_sdk.testing import ShmServer

replay = runpy.run_path(str(Path(__file__).with_name("replay.py")))["replay"]


def test_the_test_server_answers_as_recorded(shm_server: ShmServer) -> None:
    answers = [(recording, answer) for recording, answer in replay(shm_server.url)]
    assert len(answers) > 60
    for recording, answer in answers:
        expected = recording["answer"]
        assert (answer.status, answer.code) == (expected["status"], expected.get("code")), recording["name"]
        assert answer.members == expected.get("members", []), recording["name"]
        assert answer.verdicts == expected.get("verdicts", []), recording["name"]
        assert answer.last_sequences == expected.get("last_sequences", []), recording["name"]
