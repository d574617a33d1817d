"""Why a table is empty, and why it does not show everything: never one reason mixed up with another."""

from shm_tui.model.live_session import Phase, Watch


def why_empty(watch: Watch, filter_: str) -> str:
    """Loading, failed, nothing matches, nothing yet; "" while there are rows to show."""
    store = watch.store
    if store.ids:
        return ""
    if not watch.listed:
        return f"{watch.link.reason}\n\nTrying again; nothing was shown yet." if watch.link.reason else "Loading…"
    if store.rows:
        return f"Nothing matches  /{filter_}\n\nEsc clears the filter."
    applications = watch.overview.applications
    if watch.slug is not None and applications is not None and watch.slug not in {one.slug for one in applications}:
        return f"There is no application “{watch.slug}” here.\n\n[ and ] go to those that there are."
    return _first_steps(watch.client.server) if watch.complete or watch.link.phase is Phase.LIVE else ""


def why_not_all(watch: Watch) -> str:
    """What is wrong with the rows that are shown; "" when nothing is."""
    total, held = watch.total(), len(watch.store.rows)
    if watch.link.phase is Phase.REFUSED:
        return watch.link.reason
    if watch.complete and total is not None and total > held >= watch.store.limit:
        return f"showing the newest {held:,} of {total:,}"
    return ""


def _first_steps(server: str) -> str:
    return (
        "Nothing has reported yet.\n\n"
        "Put the SDK into your application, and its first report appears here by itself:\n\n"
        "    import shm_sdk\n"
        f'    telemetry = shm_sdk.Client("{server}", app_name="…", app_version="…")\n'
        "    telemetry.report_now()"
    )
