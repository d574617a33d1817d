"""The data that an install sends when it registers. It registers again when any of them changes."""

from contextlib import suppress

from shm_sdk import snapshot, system
from shm_sdk.configuration import Configuration
from shm_sdk.digests import hash_hex
from shm_sdk.hints import HintDocument, Hints
from shm_sdk.identity import Identity
from shm_sdk.state import State

ORIGINAL_MAX_CHARS = {"environment": 20, "deployment_mode": 20, "app_version": 50}  # of the original server


class Registration:
    """The description of one client's install."""

    def __init__(self, configuration: Configuration, hints: Hints) -> None:
        """`hints` may grow later."""
        self._configuration = configuration
        self._hints = hints

    def members(self, identity: Identity, state: State) -> dict[str, object]:
        """The members of the request, except the timestamp. Those without a value are left out."""
        settings = self._configuration
        mode, os_arch = settings.deployment_mode, settings.os_arch
        if settings.collect_system_metrics:
            with suppress(Exception):
                mode = mode or system.detect_deployment_mode()
                os_arch = os_arch or f"{system.detect_os()}/{system.detect_architecture()}"
        members = {
            "instance_id": identity.instance_id,
            "public_key": identity.public_key,
            "app_name": settings.app_name,
            "app_version": settings.app_version,
            "deployment_mode": mode,
            "environment": settings.environment,
            "os_arch": os_arch,
            "hints": self._known_hints(state),
        }
        return {name: value for name, value in members.items() if value}

    def explain_refusal(self, identity: Identity, state: State) -> str:
        """What the original server cannot store of it and refuses without a reason; an empty string if nothing."""
        members = self.members(identity, state)
        lengths = {name: len(str(members.get(name, ""))) for name in ORIGINAL_MAX_CHARS}
        return ", ".join(
            f"{name} has {lengths[name]} characters, the original server takes {limit}"
            for name, limit in ORIGINAL_MAX_CHARS.items()
            if lengths[name] > limit
        )

    def is_known(self, identity: Identity, state: State) -> bool:
        """Whether the server has accepted all of it."""
        return state.registration == self._hash(identity, state)

    def record_accepted(self, identity: Identity, state: State) -> None:
        """Records in the state that the server has accepted it, for later processes."""
        state.registration = self._hash(identity, state)
        state.hints, state.hints_version = self._known_hints(state), self._configuration.app_version

    def _known_hints(self, state: State) -> HintDocument:
        """The hints of all processes of this version that have reported: they may have declared different ones."""
        return self._hints.merged_with(state.hints if state.hints_version == self._configuration.app_version else {})

    def _hash(self, identity: Identity, state: State) -> str:
        members = {"server_url": self._configuration.server_url, **self.members(identity, state)}
        return hash_hex(snapshot.encode_json(members))
