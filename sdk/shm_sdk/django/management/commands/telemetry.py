"""`python manage.py telemetry preview | status | check | on | off | erase | disclose`."""

import sys

from django.core.management.base import BaseCommand, CommandParser

from shm_sdk.cli import COMMANDS, run
from shm_sdk.configuration import ConfigurationError
from shm_sdk.django import get_client


class Command(BaseCommand):
    """The end user's commands of the SDK."""

    help = "See and decide what this installation reports."

    def add_arguments(self, parser: CommandParser) -> None:
        """The one argument."""
        parser.add_argument("action", choices=list(COMMANDS))

    def handle(self, *arguments: object, action: str, **options: object) -> None:
        """Runs the action; the exit status is that of `python -m shm_sdk`."""
        try:
            status = run(get_client(), action)
        except ConfigurationError as error:
            self.stderr.write(str(error))
            status = 2
        if status:
            sys.exit(status)
