"""The SDK's own tests, which need nothing but the SDK. They are in the source distribution.

A host writes `pytest_plugins = ["shm_sdk.testing"]`, which pytest allows in its uppermost conftest.py only.
"""

from shm_sdk.testing import shm_clock, shm_server

__all__ = ["shm_clock", "shm_server"]
