"""The test vectors in docs/protocol.md are what they say, and get what they say from a real server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from tests.support import plain_http
from tests.support.responses import instances_by_id
from tests.support.server_process import ServerProcess

DOCS = Path(__file__).parent.parent.parent / "docs" / "protocol.md"


def vectors() -> dict[str, Any]:
    """What stands under the last heading."""
    section = DOCS.read_text().partition("## Test vectors")[2]
    block = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert block is not None
    found: dict[str, Any] = json.loads(block[1])
    return found


def test_each_signature_is_the_one_that_its_key_makes_of_its_body() -> None:
    given = vectors()
    keys = [SigningKey(bytes.fromhex(given[name])) for name in ("private_key", "new_private_key")]
    assert [key.verify_key.encode().hex() for key in keys] == [given["public_key"], given["new_public_key"]]
    for request in given["requests"]:
        made = {key.sign(request["body"].encode()).signature.hex() for key in keys}
        for name in {"X-Signature", "X-New-Signature"} & request["headers"].keys():
            assert (request["headers"][name] in made) == (request["status"] != 401)


def test_sent_in_their_order_they_get_the_answers_that_are_documented(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d", SHM_MAX_CLOCK_SKEW="36500d")
    requests = vectors()["requests"]
    assert {request["path"] for request in requests} >= {
        *("/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshots", "/v1/rotate", "/v1/disclose", "/v1/erase")
    }
    answers = [
        plain_http.post(f"{server.url}{request['path']}", content=request["body"].encode(), headers=request["headers"])
        for request in requests
    ]
    assert [answer.status_code for answer in answers] == [request["status"] for request in requests]
    disclosed = next(answer.json() for answer in answers if answer.request.url.path == "/v1/disclose")
    sent = [json.loads(request["body"]) for request in requests if request["status"] == 202]
    assert [told["metrics"] for told in disclosed["snapshots"]] == [
        sent[1]["snapshots"][0]["metrics"],
        sent[0]["metrics"],
    ]
    assert answers[-1].json()["snapshots"] == 2
    assert instances_by_id(server) == {}
