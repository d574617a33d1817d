"""The message in place of an empty table, and the message about a table that is incomplete."""

from shm_tui.model.live_session import LiveSession, Phase

LOADING = "Loading…"


def empty_message(session: LiveSession, filter_text: str) -> str:
    """Why the table is empty: loading, a failure, the filter, or no data yet. "" if it has rows."""
    store = session.store
    if store.row_count:
        return ""
    if store.rows and session.is_listed:
        return f"No instance matches  /{filter_text}\n\nEsc clears the filter."
    applications = session.overview.applications
    name = next((app.name for app in applications or [] if app.slug == session.slug), None)
    if session.slug is not None and applications is not None and name is None:
        return f"There is no application “{session.slug}”.\n\nPress [ or ] for the existing ones."
    if not session.is_listed:
        reason = session.connection.reason
        if session.connection.phase is Phase.ACCESS_DENIED:
            return f"{reason}\n\nNo data has arrived yet. :token takes another token."
        return f"{reason}\n\nNo data has arrived yet. Retrying." if reason else LOADING
    if name is not None:
        return f"{name} has no instances: they were erased, or it was merged into another one."
    return _setup_hint(session.client.server) if session.is_complete or session.connection.phase is Phase.LIVE else ""


def incomplete_message(session: LiveSession) -> str:
    """Why the rows may be outdated or not all; "" if they are complete."""
    total, row_count = session.total(), len(session.store.rows)
    if session.connection.phase is Phase.ACCESS_DENIED:
        return f"{session.connection.reason}; :token asks for another"
    if session.connection.is_lost:
        return session.connection.reason
    if session.window.is_uncounted:
        return "the server could not count the rows; it is asked again"
    if session.window.is_unreachable:
        return "rows so far from both ends are found with a filter, or row by row"
    if session.is_complete and total is not None and total > row_count >= session.store.limit:
        if session.server_matches.has_all_matches or session.store.is_windowed:
            return ""
        if (matches := session.server_matches.count) is not None:
            return f"showing {session.store.limit:,} of the {matches:,} instances that the server found"
        if session.server_matches.is_cut:
            return f"showing {session.store.limit:,} of the instances that the server found; their number is unknown"
        if session.store.filter:
            return f"the filter searches the newest {session.store.limit:,} of {total:,} instances"
        return f"showing the newest {min(row_count, session.store.limit):,} of {total:,} instances"
    return ""


def setup_lines(server: str) -> str:
    """The lines of Python that send a first report. They fit 80 columns, unless the address is a long one."""
    return (
        "import shm_sdk\n"
        "telemetry = shm_sdk.Client(\n"
        f'    server_url="{server}",\n'
        '    app_name="My application", app_version="1.0",\n'
        ")\n"
        "telemetry.report_now()"
    )


def _setup_hint(server: str) -> str:
    return (
        "No instance has reported yet.\n\n"
        "Add the SDK to your application. Its first report appears here:\n\n"
        f"{setup_lines(server)}\n\n"
        "y copies these lines."
    )
