"""Sends the requests of recordings.json to a server. Both the real server and that of `shm_sdk.testing` answer them.

A body has placeholders: `{id:a}` and `{key:a}` are the ID and the public key of the install `a`, `{now}` is the time,
`{now-31d}` another one. Each request is signed by the install that `signer` names, over the bytes that are sent.
"""

import http.client
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nacl.signing import SigningKey

RECORDINGS = Path(__file__).with_name("recordings.json")
PLACEHOLDER = re.compile(r"\{(id|key|now)(?::(\w))?(?:([+-]\d+)([smd]))?\}")
UNITS = {"s": "seconds", "m": "minutes", "d": "days"}


@dataclass(frozen=True)
class Answer:
    """The recorded members of an answer: the status, the code of a refusal, and the names of the members."""

    status: int
    code: str | None
    members: list[str]
    verdicts: list[str]  # of a backlog
    last_sequences: list[int]  # of conflicts


class Installs:
    """The keys of the installs of one replay."""

    def __init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self._keys: dict[str, tuple[str, SigningKey]] = {}

    def get(self, name: str) -> tuple[str, SigningKey]:
        """The ID and the key of an install."""
        return self._keys.setdefault(name, (str(uuid.uuid4()), SigningKey.generate()))

    def fill(self, text: str) -> str:
        """The text with its placeholders replaced."""

        def replace(match: re.Match[str]) -> str:
            kind, name, amount, unit = match.groups()
            if kind == "now":
                offset = timedelta(**{UNITS[unit]: int(amount)}) if unit else timedelta()
                return (self.started_at + offset).isoformat().replace("+00:00", "Z")
            instance_id, key = self.get(name)
            return instance_id if kind == "id" else bytes(key.verify_key).hex()

        return PLACEHOLDER.sub(replace, text)


def load() -> list[dict[str, Any]]:
    """The recordings."""
    recordings: list[dict[str, Any]] = json.loads(RECORDINGS.read_text())
    return recordings


def replay(url: str) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Each recording with the server's answer. The order matters: later requests concern earlier installs."""
    installs = Installs()
    for recording in load():
        body = recording["raw"] if "raw" in recording else json.dumps(recording["body"], ensure_ascii=False)
        content = (installs.fill(body) * recording.get("repeat", 1)).encode()
        headers = {"Content-Type": "application/json"}
        if signer := recording.get("signer"):
            instance_id, key = installs.get(signer)
            headers |= {"X-Instance-ID": instance_id, "X-Signature": key.sign(content).signature.hex()}
        headers |= {name: installs.fill(value) for name, value in recording.get("headers", {}).items()}
        headers = {name: value for name, value in headers.items() if value}
        yield recording, _post(url, recording["path"], content, headers)


def _post(url: str, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)) as connection:
        connection.request("POST", path, content, headers)
        response = connection.getresponse()
        document = json.loads(response.read() or b"{}")
    verdicts = document.get("snapshots", ()) if path == "/v1/snapshots" else ()
    return Answer(
        response.status,
        document.get("code") if response.status >= 400 else None,
        sorted(document) if response.status < 400 else [],
        [f"{verdict['status']} {verdict.get('code', '')}".strip() for verdict in verdicts],
        [each["last_sequence"] for each in (document, *verdicts) if each.get("sequence_conflict")],
    )
