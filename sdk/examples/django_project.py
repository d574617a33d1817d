"""A Django project in one file. Run: python django_project.py runserver, or gunicorn django_project:application."""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from shm_sdk.django import get_client

settings.configure(
    SECRET_KEY="only for this example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["shm_sdk.django"],
    SHM={
        "server_url": "https://metrics.example.com",
        "app_name": "Ledger",
        "app_version": "1.4.2",
        "providers": ["django_project.metrics"],
    },
)


def metrics():
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1284")
        return {"invoices_sent": cursor.fetchone()[0]}


def invoices(request):
    get_client().counter("invoices_served").inc()  # summed over all workers
    return JsonResponse({"invoices": []})


urlpatterns = [path("invoices", invoices)]
application = get_wsgi_application()

if __name__ == "__main__":
    sys.modules["django_project"] = sys.modules["__main__"]
    execute_from_command_line(sys.argv)
