"""Telemetry of a Django project: `INSTALLED_APPS = [..., "shm_sdk.django"]` and a setting `SHM`.

    SHM = {
        "server_url": "https://metrics.example.com",
        "app_name": "Ledger",
        "app_version": "1.4.2",
        "providers": ["ledger.telemetry.metrics"],
    }

`providers` has the dotted paths of functions, and `first_report_after` is the argument of `start`. The other members
are the arguments of `shm_sdk.Client`.
`python manage.py telemetry preview` and the other commands show the end user what is sent.
"""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from shm_sdk.client import Client
    from shm_sdk.django.apps import TelemetryConfig


def get_client() -> "Client":
    """The project's Client, once Django is set up."""
    from django.apps import apps

    return cast("TelemetryConfig", apps.get_app_config("shm_telemetry")).client
