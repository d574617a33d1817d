"""A FastAPI application; Starlette is the same. Run: uvicorn fastapi_app:app --workers 4."""

from contextlib import asynccontextmanager

from fastapi import FastAPI

import shm_sdk

telemetry = shm_sdk.Client("https://metrics.example.com", app_name="Ledger", app_version="1.4.2")
served = telemetry.counter("invoices_served")  # summed over all workers


@telemetry.provider
async def metrics():
    return {"currencies": 3}  # for example the result of a query, in one of the workers


@asynccontextmanager
async def lifespan(app):
    telemetry.start()  # in each worker
    yield
    await telemetry.astop(flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/invoices")
async def invoices():
    served.inc()
    return []
