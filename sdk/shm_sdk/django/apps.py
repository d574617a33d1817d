"""The application configuration: creates the Client when Django is set up, and starts it in server processes."""

import os
import sys
from collections.abc import Callable, Mapping

from django.apps import AppConfig
from django.conf import settings
from django.db import close_old_connections
from django.utils.module_loading import import_string

from shm_sdk.client import Client

COMMANDS = ("manage.py", "django-admin", "django-admin.py")
SERVER_COMMAND = "runserver"


class TelemetryConfig(AppConfig):
    """Telemetry of the project."""

    name = "shm_sdk.django"
    label = "shm_telemetry"
    verbose_name = "SHM telemetry"
    client: Client

    def ready(self) -> None:
        """Creates the Client, and starts it unless the process is a command, a test or the reloader's parent."""
        options = dict(getattr(settings, "SHM", {}))
        providers = options.pop("providers", ())
        first_report_after = options.pop("first_report_after", None)
        self.client = Client(**options)
        for provider in providers:
            self.client.provider(closing_connections(provider))
        if is_server(sys.argv, os.environ) and "pytest" not in sys.modules:
            self.client.start(first_report_after)


def closing_connections(path: str) -> Callable[[], Mapping[str, object]]:
    """The provider at a dotted path. Django closes old connections only around requests, and the SDK has a thread.

    It is imported now if possible: an import in that thread, during a fork, is never completed in the child.
    """
    imported = _find(path)

    def collect() -> Mapping[str, object]:
        close_old_connections()
        try:
            return (imported or import_string(path))()
        finally:
            close_old_connections()

    collect.__qualname__ = path  # names it in warnings
    return collect


def _find(path: str) -> Callable[[], Mapping[str, object]] | None:
    """The function, None where its module is still being imported or cannot be: the first report names the error."""
    try:
        function: Callable[[], Mapping[str, object]] = import_string(path)
    except Exception:
        return None
    return function


def is_server(arguments: list[str], environment: Mapping[str, str]) -> bool:
    """Whether the process serves requests or runs tasks. The reloader's parent only watches files."""
    program = os.path.basename(arguments[0]) if arguments else ""  # noqa: PTH119
    if SERVER_COMMAND in arguments[1:2]:
        return "--noreload" in arguments or environment.get("RUN_MAIN") == "true"
    is_command = program in COMMANDS or (program == "__main__.py" and "django" in arguments[0])
    return not is_command  # gunicorn, uvicorn, celery, uwsgi
