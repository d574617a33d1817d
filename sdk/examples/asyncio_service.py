"""An asyncio service with an async provider, which runs on the service's event loop."""

import asyncio
import signal

import shm_sdk

telemetry = shm_sdk.Client("https://metrics.example.com", app_name="Ledger", app_version="1.4.2")


@telemetry.provider
async def metrics():
    await asyncio.sleep(0)  # for example a query
    return {"open_connections": 12}


async def main():
    stopped = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
    telemetry.start()  # within the loop
    print("ready", flush=True)
    await stopped.wait()
    await telemetry.astop(flush=True)  # a last report; the loop goes on meanwhile


if __name__ == "__main__":
    asyncio.run(main())
