"""The test vectors in docs/protocol.md have correct signatures, and a server sends the documented responses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from tests.support import plain_http
from tests.support.responses import instances_by_id
from tests.support.server_process import ServerProcess

PROTOCOL_GUIDE = Path(__file__).parent.parent.parent / "docs" / "protocol.md"


def vectors() -> dict[str, Any]:
    """The JSON of the section on test vectors."""
    section = PROTOCOL_GUIDE.read_text().partition("## Test vectors")[2]
    block = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert block is not None
    parsed: dict[str, Any] = json.loads(block[1])
    return parsed


def test_each_signature_is_that_of_its_key_over_its_body() -> None:
    documented = vectors()
    keys = [SigningKey(bytes.fromhex(documented[name])) for name in ("private_key", "new_private_key")]
    assert [key.verify_key.encode().hex() for key in keys] == [documented["public_key"], documented["new_public_key"]]
    for request in documented["requests"]:
        signatures = {key.sign(request["body"].encode()).signature.hex() for key in keys}
        for name in {"X-Signature", "X-New-Signature"} & request["headers"].keys():
            assert (request["headers"][name] in signatures) == (request["status"] != 403)


def test_the_requests_in_order_get_the_documented_responses(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_SNAPSHOT_AGE="36000d", SHM_RETENTION="36500d", SHM_MAX_CLOCK_SKEW="36500d")
    requests = vectors()["requests"]
    assert {request["path"] for request in requests} >= {
        *("/v1/register", "/v1/activate", "/v1/snapshot", "/v1/snapshots", "/v1/rotate", "/v1/disclose", "/v1/erase")
    }
    responses = [
        plain_http.post(f"{server.url}{request['path']}", content=request["body"].encode(), headers=request["headers"])
        for request in requests
    ]
    assert [response.status_code for response in responses] == [request["status"] for request in requests]
    disclosed = next(response.json() for response in responses if response.request.url.path == "/v1/disclose")
    sent = [json.loads(request["body"]) for request in requests if request["status"] == 202]
    assert [snapshot["metrics"] for snapshot in disclosed["snapshots"]] == [
        sent[1]["snapshots"][0]["metrics"],
        sent[0]["metrics"],
    ]
    assert responses[-1].json()["snapshots"] == 2
    assert instances_by_id(server) == {}
