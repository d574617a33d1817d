"""A Celery application. Run: celery -A celery_app worker."""

from celery import Celery
from celery.signals import worker_init, worker_shutdown

import shm_sdk

app = Celery("ledger", broker="redis://localhost")

telemetry = shm_sdk.Client("https://metrics.example.com", app_name="Ledger", app_version="1.4.2")
sent = telemetry.counter("invoices_sent")  # summed over all processes of the workers


@app.task
def send_invoice():
    sent.inc()


@worker_init.connect
def start(**_):
    telemetry.start()  # before the worker forks: its children count, and one process reports


@worker_shutdown.connect
def stop(**_):
    telemetry.stop(flush=True)
