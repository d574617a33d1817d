"""The measured SDKs: this one, and two that vendors of Python software commonly embed.

Each is a few lines of Python that a host would have. `{url}` is the server, `{data}` a directory of the process's own.
"""

from dataclasses import dataclass

METRICS = {f"metric_{number}": number * 1284 for number in range(12)}


@dataclass(frozen=True, slots=True)
class MeasuredSdk:
    """An SDK as statements. `start` runs once in a host, `report` sends one snapshot or event and waits for it.

    `begin` makes it send by itself in the background, as it does in production. `flush` is its orderly end.
    """

    name: str
    module: str
    start: str
    report: str
    begin: str
    flush: str
    path: str  # of its requests


SHM = MeasuredSdk(
    "shm-sdk",
    "shm_sdk",
    f"c = shm_sdk.Client('{{url}}', 'Ledger', '1.4.2', data_dir='{{data}}'); c.provider(lambda: {METRICS}); c.start()",
    "assert c.report_now(30).sent",
    "c.stop(); c.start(first_report_after=0); time.sleep(0.5)",
    "c.stop(flush=True)",
    "/v1/snapshot",
)
SENTRY = MeasuredSdk(
    "sentry-sdk",
    "sentry_sdk",
    "sentry_sdk.init('{dsn}', release='1.4.2')",
    f"sentry_sdk.set_context('metrics', {METRICS}); sentry_sdk.capture_message('snapshot'); sentry_sdk.flush(30)",
    "sentry_sdk.capture_message('snapshot'); time.sleep(0.5)",
    "sentry_sdk.flush(2)",
    "/api/1/envelope/",
)
POSTHOG = MeasuredSdk(
    "posthog",
    "posthog",
    "c = posthog.Posthog('phc_key', host='{url}')",
    f"c.capture('snapshot', distinct_id='install', properties={METRICS}); c.flush()",
    "c.capture('snapshot', distinct_id='install'); time.sleep(0.5)",
    "c.shutdown()",
    "/batch/",
)
MEASURED_SDKS = (SHM, SENTRY, POSTHOG)
