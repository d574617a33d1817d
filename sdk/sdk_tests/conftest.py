"""The SDK's own tests, which need nothing but the SDK. They are in the source distribution."""

pytest_plugins = ["shm_sdk.testing"]
