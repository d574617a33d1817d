"""Signatures by PyNaCl or by the host's cryptography: the same bytes."""

import hashlib
import runpy
import sys
from pathlib import Path

import pytest

from shm_sdk import digests
from shm_sdk.signing import Cryptography, Library, Nacl, Sodium, generate_seed
from tests.support.scripted_server import ScriptedServer
from tests.support.sdk_hosts import report_in_subprocess

LIBRARIES: list[Library] = [Sodium(), Nacl(), Cryptography()]
USED = """
import sys, shm_sdk
outcome = shm_sdk.Client(sys.argv[1], 'Ledger', '1', data_dir=sys.argv[2]).report_now()
print(outcome.result, type(shm_sdk.signing.library).__name__, 'nacl' in sys.modules)
"""
MISSING = "PyNaCl is not installed, and neither is cryptography 40 or newer"
HIDE_NACL = "import sys; sys.modules['nacl'] = None\n"
HIDE_SODIUM = "import sys, nacl.bindings; sys.modules['nacl._sodium'] = None\n"
CHANGE_SODIUM = """
import sys, types, nacl.bindings
ffi, lib = sys.modules["nacl._sodium"].ffi, sys.modules["nacl._sodium"].lib
names = ("crypto_sign_seed_keypair", "crypto_sign", "crypto_sign_open", "sodium_init")
changed = {name: getattr(lib, name) for name in names} | {"crypto_sign": lambda message, key: b""}
sys.modules["nacl._sodium"] = types.SimpleNamespace(ffi=ffi, lib=types.SimpleNamespace(**changed))
"""
IMPORT_CRYPTOGRAPHY = "import cryptography.hazmat.primitives.asymmetric.ed25519\n"


def test_both_libraries_make_the_same_keys_and_signatures() -> None:
    for _ in range(20):
        seed, message = generate_seed(), generate_seed()
        keys = {library.derive_public_key(seed) for library in LIBRARIES}
        signatures = {library.sign(seed, message) for library in LIBRARIES}
        assert (len(keys), len(signatures)) == (1, 1)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_a_signature_is_valid_for_its_key_and_message_only(library: Library) -> None:
    seed, message = generate_seed(), b"a message"
    key, signature = library.derive_public_key(seed), library.sign(seed, message)
    assert library.is_valid(key, message, signature)
    assert not library.is_valid(key, b"another", signature)
    assert not library.is_valid(key, message, bytes(64))
    assert not library.is_valid(key, message, signature[:63])
    assert not library.is_valid(library.derive_public_key(generate_seed()), message, signature)


@pytest.mark.parametrize("hidden", [("_sha2",), ("_sha256",), ("_sha2", "_sha256")], ids="+".join)
def test_digests_are_the_same_without_the_interpreters_private_modules(
    hidden: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    module = runpy.run_path(digests.__file__)
    assert module["hash_hex"](b"Ledger") == hashlib.sha256(b"Ledger").hexdigest()


def test_a_host_without_both_libraries_learns_what_is_missing(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    """It was packaged without the SDK's dependency. The line is printed once, although the host has no log."""
    program = f"""
import sys
sys.modules["nacl"] = sys.modules["cryptography"] = None
sys.stderr = sys.stdout
import shm_sdk
telemetry = shm_sdk.Client(sys.argv[1], "Ledger", "1", data_dir=sys.argv[2])
print([telemetry.report_now().reason == {MISSING!r} for _ in range(2)])
"""
    assert report_in_subprocess(scripted_server.url, tmp_path, program) == (
        f"shm_sdk: telemetry cannot report: {MISSING}\n[True, True]\n"
    )
    assert scripted_server.requests == []


@pytest.mark.parametrize(
    ("before", "used"),
    [
        ("", "Sodium True"),
        (HIDE_SODIUM, "Nacl True"),
        (CHANGE_SODIUM, "Nacl True"),
        (IMPORT_CRYPTOGRAPHY, "Cryptography False"),
        (HIDE_NACL, "Cryptography True"),  # the name is hidden, not loaded
    ],
    ids=["alone", "without its private module", "with another one", "in a host with cryptography", "without PyNaCl"],
)
def test_the_library_that_the_host_has_is_used(
    scripted_server: ScriptedServer, tmp_path: Path, before: str, used: str
) -> None:
    assert report_in_subprocess(scripted_server.url, tmp_path, before + USED) == f"Result.SENT {used}\n"
    key = str(scripted_server.requests[0].json["public_key"])
    assert all(request.is_signed_by(key) for request in scripted_server.requests)
