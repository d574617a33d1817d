"""Corruptions of derived tables: an SQL statement, and the start and a part of the line that `shm check` prints for it.

In a statement, ONE is the ID of an active instance with a current snapshot. Each corruption gets one of its own, so
that those of a group do not interfere.
"""

CORRUPTIONS = {
    "leaves of a snapshot": (
        "UPDATE snapshots SET leaves = '{\"x\": 1}' WHERE instance_id = ONE",
        "snapshots: ",
        'leaves: is {"x": 1}, should be ',
    ),
    "snapshots of no instance": (
        "INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor) "
        "SELECT 'abcdef01-0000-4000-8000-000000000000', now() - interval '1 hour' * n, '1', '{}', 'ledger', 0 "
        "FROM generate_series(1, 3) n",
        "snapshots: ",
        "abcdef01, of no instance: is 3 rows, should be none",
    ),
    "leaves of an instance": (
        "UPDATE instances SET leaves = '{\"x\": 1}' WHERE instance_id = ONE",
        "instances: ",
        'leaves: is {"x": 1}, should be ',
    ),
    "metrics of an instance": (
        "UPDATE instances SET metrics = '{\"x\": 1}' WHERE instance_id = ONE",
        "instances: ",
        'metrics: is {"x": 1}, should be ',
    ),
    "an older current snapshot": (
        "UPDATE instances SET snapshot_at = snapshot_at - interval '1 hour' WHERE instance_id = ONE",
        "instances: ",
        "snapshot_at: is ",
    ),
    "no current snapshot": (
        "UPDATE instances SET snapshot_at = NULL, metrics = '{}', leaves = NULL WHERE instance_id = ONE",
        "instances: ",
        "snapshot_at: is nothing, should be 20",
    ),
    "the sequence of a snapshot": (
        "UPDATE instances SET sequence = 999 WHERE instance_id = ONE",
        "instances: ",
        "sequence: is 999, should be ",
    ),
    "counted": (
        "UPDATE instances SET counted = NOT counted WHERE instance_id = ONE",
        "instances: ",
        "counted: is ",
    ),
    "elapsed_windows": (
        "UPDATE instances SET elapsed_windows = 3 WHERE instance_id = ONE",
        "instances: ",
        "elapsed_windows: is 3, should be 0",
    ),
    "reporting": (
        "UPDATE instances SET reporting = FALSE WHERE instance_id = ONE",
        "instances: ",
        "reporting: is false, should be true",
    ),
    "a refresh that is due later": (
        "UPDATE instances SET refresh_at = refresh_at + interval '1 day' WHERE instance_id = ONE",
        "instances: ",
        "refresh_at: is ",
    ),
    "a refresh that is never due": (
        "UPDATE instances SET refresh_at = NULL WHERE instance_id = ONE",
        "instances: ",
        "refresh_at: is nothing, should be ",
    ),
    "rank of a version": (
        "UPDATE instances SET version_rank = '0' WHERE instance_id = ONE",
        "instances: ",
        "version_rank: is 0, should be ",
    ),
    "missing tallies": (
        "DELETE FROM tallies WHERE metric_type = 'number'",
        "tallies: ",
        "number, sent: is 0 over 0, ",
    ),
    "a total": (
        "UPDATE tallies SET total = total + 0.5 WHERE (app_slug, key) = ('ledger', 'sent')",
        "tallies: ledger, number, sent: is ",
        ".5 over ",
    ),
    "counts of an application": (
        "UPDATE tallies SET instances = instances + 1000 WHERE app_slug = 'ledger'",
        "tallies: ledger, version, ",
        " over 10",
    ),
    "the counted part of a tally": (
        "UPDATE tallies SET counted_total = counted_total - 7, counted_instances = counted_instances + 1"
        " WHERE (app_slug, metric_type, key) = ('ledger', 'number', 'hit_rate')",
        "tallies: ledger, number, hit_rate: is ",
        ", counted ",
    ),
    "an extra tally": (
        "INSERT INTO tallies VALUES ('ghost', 'string', 'plan', E'a\\x1b]52;c', 0, 2, 0, 1)"
        " ON CONFLICT (app_slug, metric_type, key, value) DO UPDATE SET instances = 2, counted_instances = 1",
        "tallies: ghost, string, plan, a�]52;c: is 0 over 2, counted 0 over 1, should be 0 over 0, counted 0 over 0",
        "",
    ),
    "missing hours": ("DELETE FROM series_hours WHERE key = 'sent'", "series_hours: ", "number, sent, 20"),
    "an hour": (
        "UPDATE series_hours SET total = total + 1000 WHERE ctid = (SELECT max(ctid) FROM series_hours)",
        "series_hours: ",
        ":00:00+00: is ",
    ),
    "an extra hour": (
        "INSERT INTO series_hours VALUES ('ghost', 'version', '', '9.9', date_trunc('hour', now()), 0, 3)"
        " ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET instances = 3",
        "series_hours: ghost, version, 9.9, 20",
        ":00:00+00: is 0 over 3, should be 0 over 0",
    ),
    "missing days": ("DELETE FROM series_days WHERE key = 'sent'", "series_days: ", "number, sent, 20"),
    "a day": (
        "UPDATE series_days SET instances = instances + 1 WHERE ctid = (SELECT max(ctid) FROM series_days)",
        "series_days: ",
        " 00:00:00+00: is ",
    ),
    "an extra day": (
        "INSERT INTO series_days VALUES ('ledger', 'number', 'ghost', '', '2020-02-02 00:00Z', 2.50, 3)"
        " ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET total = 2.50, instances = 3",
        "series_days: ledger, number, ghost, 2020-02-02 00:00:00+00: is 2.5 over 3, should be 0 over 0",
        "",
    ),
    "missing versions": (
        "DELETE FROM versions_seen WHERE instance_id = ONE",
        "versions_seen: ",
        ": is nothing, should be 20",
    ),
    "a version with a later time": (
        "UPDATE versions_seen SET first_at = first_at + interval '1 second' WHERE instance_id = ONE",
        "versions_seen: ",
        ", should be 20",
    ),
    "a version with an earlier time": (
        "UPDATE versions_seen SET first_at = first_at - interval '1 second' WHERE instance_id = ONE",
        "versions_seen: ",
        ", should be 20",
    ),
    "a version of another application": (
        "UPDATE versions_seen SET app_slug = 'ghost' WHERE instance_id = ONE",
        "versions_seen: ",
        ", ghost, should be 20",
    ),
    "a version that no install reported": (
        "INSERT INTO versions_seen VALUES (ONE, '9.9', 'ledger', now())",
        "versions_seen: ",
        ", ledger, should be nothing",
    ),
    "an absence of an unknown instance": (
        "INSERT INTO absences VALUES (gen_random_uuid(), now() - interval '1 day', now())",
        "absences: ",
        ": is ended 20",
    ),
    "an absence that ends before it begins": (
        "INSERT INTO absences VALUES (ONE, now(), now() - interval '1 day')",
        "absences: ",
        "should be none",
    ),
    "a spread of no values": (
        "INSERT INTO distributions SELECT 'ledger', FALSE, 'ghost', 2, 1, 1.5, 1.9, 2, now(), cursor FROM feed_head",
        "distributions: ledger, all, ghost: is 1, 1.5, 1.9, 2 over 2, should be nothing",
        "",
    ),
}

# Corruptions that can be made at once. `shm check` prints twenty lines of a table, a corruption of a snapshot or an
# instance adds lines of the tallies and hours, and some change many rows or hide another one. A spread is compared only
# while its application is unchanged.
OF_DERIVED_DATA = (
    ("an extra tally", "an hour", "an extra hour", "a day", "an extra day"),
    ("missing tallies", "missing hours"),
    ("a total", "missing days"),
    ("the counted part of a tally",),
    ("counts of an application", "a spread of no values"),
)
GROUPS = (
    tuple(name for name in CORRUPTIONS if not any(name in group for group in OF_DERIVED_DATA)),
    *OF_DERIVED_DATA,
)
