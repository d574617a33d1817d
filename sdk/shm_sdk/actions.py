"""The end user's actions on one application's telemetry.

They work while telemetry is off: a person who refuses it may still see it, disclose it and erase it.
"""

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple, Protocol

from shm_sdk.choice import choice_path, read_choice, write_choice
from shm_sdk.clock import get_clock
from shm_sdk.components import Components
from shm_sdk.configuration import Configuration, load_configuration
from shm_sdk.identity import Identity, InvalidIdentityError, find
from shm_sdk.names import telemetry_variable
from shm_sdk.opt_out import opt_out_reason
from shm_sdk.outcome import Outcome, Preview
from shm_sdk.reporter import Reporter
from shm_sdk.shared_directory import SharedDirectory, remove_shared_files
from shm_sdk.snapshot import encode_json
from shm_sdk.state import StateFile
from shm_sdk.transport import Response, Transport, TransportError
from shm_sdk.version import __version__

# The required settings that an action does not use, so that a person need not know them:
LOCAL_ACTION = ("server_url", "app_version")
SIGNED_ACTION = ("app_version",)
MAX_DISCLOSURE_BYTES = 256 * 1024 * 1024  # 90 days of the largest hourly snapshots are 140 MiB


class ClientInternals(Protocol):
    """The members of a Client that the actions use."""

    _arguments: dict[str, object]
    _enabled: object
    _components: Components

    def report_now(self, timeout: float = ...) -> Outcome:
        """See Client."""


class ActionResult(NamedTuple):
    """The result of an action. `document` is the server's answer, None without one."""

    is_done: bool
    text: str  # a sentence for a person
    document: object = None


class Status(NamedTuple):
    """The telemetry of one application on this machine."""

    is_on: bool
    reason: str  # why it is off, empty where it is on
    app_name: str
    server_url: str
    consent: str  # the host's mode
    choice: str  # `on`, `off` or empty
    decided_at: str
    variable: str  # that turns this application's telemetry off
    choice_file: Path
    instance_id: str  # empty before the first report
    identity_file: Path | None
    ephemeral_reason: str  # empty for an install that lasts
    last_sent_at: str  # RFC 3339, empty if not known
    next_report_at: str


def preview(client: ClientInternals) -> Preview:
    """See Controls.preview."""
    configuration = _configuration(client)
    components = client._components
    reporter = Reporter(
        configuration, components.providers, components.started_at, counters=components.counters, hints=components.hints
    )
    return reporter.preview()


def status(client: ClientInternals) -> Status:
    """See Controls.status."""
    configuration = _configuration(client, optional=LOCAL_ACTION)
    choice = read_choice(configuration)
    reason = opt_out_reason(client._enabled, os.environ, configuration.app_name) or ""
    if not reason and choice.is_off:
        reason = choice.error or "the user has turned it off"
    if not reason and configuration.consent == "opt-in" and not choice.is_on:
        reason = "the user has not agreed yet"
    identity: Identity | None = None
    ephemeral_reason = ""
    try:
        identity = find(configuration)
    except InvalidIdentityError as error:
        ephemeral_reason = str(error)
    state = StateFile(SharedDirectory(configuration).peek()).load()
    return Status(
        is_on=not reason,
        reason=reason,
        app_name=configuration.app_name,
        server_url=configuration.server_url,
        consent=configuration.consent,
        choice=choice.telemetry,
        decided_at=choice.decided_at,
        variable=telemetry_variable(configuration.app_name),
        choice_file=choice_path(configuration),
        instance_id=identity.instance_id if identity else "",
        identity_file=identity.path if identity else None,
        ephemeral_reason=identity.ephemeral_reason if identity else ephemeral_reason,
        last_sent_at=_format(state.last_sent_at),
        next_report_at="" if reason else _format(state.next_report_at),
    )


def check(client: ClientInternals, timeout: float) -> ActionResult:
    """See Controls.check."""
    client._components.configuration = _configuration(client)
    outcome = client.report_now(timeout)
    answer = f", HTTP {outcome.status}" if outcome.status else ""
    return ActionResult(outcome.sent, f"{outcome.result.value}{answer}: {outcome.reason}")


def turn_on(client: ClientInternals) -> ActionResult:
    """See Controls.turn_on."""
    result = _decide(client, "on")
    reason = opt_out_reason(client._enabled, os.environ, _configuration(client, optional=LOCAL_ACTION).app_name)
    if result.is_done and reason:
        return ActionResult(False, f"the choice is stored, and telemetry stays off: {reason}")
    return result


def turn_off(client: ClientInternals) -> ActionResult:
    """See Controls.turn_off."""
    return _decide(client, "off")


def erase(client: ClientInternals, timeout: float) -> ActionResult:
    """See Controls.erase. An erasure that fails keeps the identity, which signs the next attempt."""
    configuration = _configuration(client, optional=SIGNED_ACTION)
    decision = _decide(client, "off")
    try:
        identity = find(configuration)
    except InvalidIdentityError as error:
        return ActionResult(False, f"{decision.text}. Nothing is erased: {error}")
    if identity is None:
        return ActionResult(decision.is_done, f"{decision.text}. This install has never reported")
    try:
        response = _post(configuration, identity, "erase", timeout)
    except TransportError as error:
        return ActionResult(False, f"{decision.text}. Nothing is erased: the server cannot be reached ({error})")
    receipt = _parse(response)
    is_erased = response.status == 200 and isinstance(receipt, dict) and "erased_at" in receipt
    if not is_erased and not (response.status == 403 and response.is_unknown_instance):
        return ActionResult(False, f"{decision.text}. Nothing is erased: {_describe(response)}")
    kept = _delete_identity(configuration, identity)
    erased = "the server has erased this install" if is_erased else "the server holds nothing on it"
    text = f"{decision.text}, and {erased}"
    return ActionResult(decision.is_done and not kept, f"{text}. {kept}" if kept else text, receipt)


def disclose(client: ClientInternals, timeout: float) -> ActionResult:
    """See Controls.disclose."""
    configuration = _configuration(client, optional=SIGNED_ACTION)
    try:
        identity = find(configuration)
        if identity is None:
            return ActionResult(True, "this install has never reported")
        response = _post(configuration, identity, "disclose", timeout)
    except InvalidIdentityError as error:
        return ActionResult(False, str(error))
    except TransportError as error:
        return ActionResult(False, f"the server cannot be reached ({error})")
    if response.status == 403 and response.is_unknown_instance:
        return ActionResult(True, "the server holds nothing on this install")
    document = _parse(response)
    if response.status != 200 or not isinstance(document, dict) or "instance" not in document:
        return ActionResult(False, _describe(response))
    return ActionResult(True, "everything that the server holds on this install", document)


def _configuration(client: ClientInternals, *, optional: Collection[str] = ()) -> Configuration:
    if client._components.configuration is not None:
        return client._components.configuration
    return load_configuration(client._arguments, os.environ, optional=optional)


def _decide(client: ClientInternals, telemetry: str) -> ActionResult:
    configuration = _configuration(client, optional=LOCAL_ACTION)
    try:
        write_choice(configuration, read_choice(configuration).decided(telemetry))
    except OSError as error:
        # The variable turns telemetry off, and agrees to nothing.
        off = f"set {telemetry_variable(configuration.app_name)}=off"
        on = "the application needs a data directory that it can write (SHM_DATA_DIR)"
        path, remedy = choice_path(configuration), off if telemetry == "off" else on
        return ActionResult(False, f"{path} cannot be written ({error.strerror}); {remedy}")
    return ActionResult(True, f"telemetry of {configuration.app_name} is {telemetry}")


def _post(configuration: Configuration, identity: Identity, action: str, timeout: float) -> Response:
    """Sends a signed action; once more with the server's time if this machine's clock is wrong. TransportError."""
    transport = Transport(configuration.server_url, f"shm-sdk-python/{__version__}", MAX_DISCLOSURE_BYTES)
    deadline = time.monotonic() + timeout
    try:
        response = _post_at(transport, identity, action, get_clock().now(), timeout)
        server_time = response.json_timestamp("server_time")
        if response.status == 400 and server_time is not None:
            response = _post_at(transport, identity, action, server_time, deadline - time.monotonic())
        return response
    finally:
        transport.close()


def _post_at(transport: Transport, identity: Identity, action: str, timestamp: datetime, timeout: float) -> Response:
    body = encode_json({"action": action, "instance_id": identity.instance_id, "timestamp": timestamp.isoformat()})
    headers = {"X-Instance-ID": identity.instance_id, "X-Signature": identity.sign(body)}
    return transport.post(f"/v1/{action}", body, headers, timeout)


def _describe(response: Response) -> str:
    """The reason why an answer has no result."""
    if response.status == 404:
        return "the server does not offer it; ask the vendor, with the ID of this install"
    if response.status == 200:
        return "the answer is incomplete, or not that of a SHM server"
    return f"the server answered {response.status}"


def _delete_identity(configuration: Configuration, identity: Identity) -> str:
    """Deletes the identity and its spooled snapshots. Returns what a person has to delete, or an empty string.

    Running processes must not use the identity again either.
    """
    remove_shared_files(configuration)
    with suppress(OSError):
        write_choice(configuration, read_choice(configuration).erased(identity.instance_id))
    if identity.path is None:
        return "Remove SHM_INSTANCE_ID and SHM_PRIVATE_KEY before you turn it on again"
    try:
        identity.path.unlink(missing_ok=True)
        identity.path.with_name(f".{identity.path.name}.app").unlink(missing_ok=True)
    except OSError as error:
        return f"{identity.path} cannot be deleted ({error.strerror}); delete it before you turn it on again"
    return ""


def _format(unix_time: float) -> str:
    """A time of the state as RFC 3339, empty if it is not known."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(unix_time, timezone.utc).isoformat(timespec="seconds") if unix_time else ""
    return ""


def _parse(response: Response) -> object:
    try:
        return json.loads(response.body.decode())
    except (ValueError, RecursionError):
        return None
