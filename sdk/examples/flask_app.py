"""A Flask application. Run: flask --app flask_app run, or gunicorn -w 4 flask_app:app."""

from flask import Flask

import shm_sdk

telemetry = shm_sdk.Client("https://metrics.example.com", app_name="Ledger", app_version="1.4.2")
served = telemetry.counter("invoices_served")  # summed over all workers


@telemetry.provider
def metrics():
    return {"currencies": 3}  # for example the result of a query, in one of the workers


def create_app():
    app = Flask(__name__)

    @app.get("/invoices")
    def invoices():
        served.inc()
        return []

    telemetry.start()
    return app


app = create_app()
