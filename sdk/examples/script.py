"""A script that cron runs once an hour: it reports before it ends."""

import shm_sdk

telemetry = shm_sdk.Client("https://metrics.example.com", app_name="Ledger", app_version="1.4.2")


@telemetry.provider
def metrics():
    return {"invoices_sent": 1284, "backup_enabled": True}


def main():
    print("the work of the script")
    outcome = telemetry.report_now(timeout=3)  # never raises
    telemetry.stop()
    print(f"telemetry: {outcome.reason}")


if __name__ == "__main__":
    main()
