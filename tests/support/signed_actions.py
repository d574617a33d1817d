"""Signed requests of an install: backlog, rotation, erasure, disclosure."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from nacl.signing import SigningKey

from tests.support import plain_http
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def action(install: Install, name: str, at: datetime | None = None, **more: Any) -> bytes:
    """The body of a signed action."""
    timestamp = (at or datetime.now(UTC)).isoformat()
    return json.dumps({"action": name, "instance_id": install.instance_id, "timestamp": timestamp, **more}).encode()


def act(install: Install, name: str, at: datetime | None = None) -> httpx.Response:
    """Sends a signed erasure or disclosure."""
    body = action(install, name, at)
    return install.post(f"/v1/{name}", body, install.signed(body))


def rotate(install: Install, new: SigningKey, server: ServerProcess | None = None) -> httpx.Response:
    """Sends a rotation, signed with both keys. The `Install` keeps its old key."""
    body = action(install, "rotate", new_public_key=new.verify_key.encode().hex())
    headers = install.signed(body) | {"X-New-Signature": new.sign(body).signature.hex()}
    return plain_http.post(f"{server.url if server else install.url}/v1/rotate", content=body, headers=headers)


def backlog(install: Install, members: list[Any]) -> httpx.Response:
    """Sends a signed backlog."""
    body = json.dumps({"instance_id": install.instance_id, "snapshots": members}).encode()
    return install.post("/v1/snapshots", body, install.signed(body))


def ago(minutes: float) -> str:
    """A timestamp of some minutes ago."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
