"""Session settings of every connection: a role, a database or libpq's environment may have set others.

`SESSION_SETTINGS` are sent twice: in the connection's parameter `options`, because psycopg2 reads some of them when it
connects, and as statements after that, because PGTZ and PGDATESTYLE override `options`.
"""

# Settings on which the result or the durability of a statement depends, as psycopg2, SHM's statements and principle
# "an acknowledged snapshot is never lost" expect them. PostgreSQL's configuration may differ for other programs.
SESSION_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "gin_fuzzy_search_limit": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "exit_on_error": "off",
    "lock_timeout": "0",  # statement_timeout limits the wait
    "idle_session_timeout": "0",  # connections of the pool are idle at night
}

# The same for settings that older versions do not have. First, because a transaction_timeout covers all statements.
NEWER_SETTINGS = """
SELECT set_config(name, value, false)
FROM (VALUES ('transaction_timeout', '0'), ('restrict_nonsystem_relation_kind', '')) AS newer (name, value)
WHERE current_setting(name, true) IS NOT NULL"""

# Commits are durable on this server even where its configuration says otherwise. Waiting for standbys stays its choice.
DURABLE_COMMITS = """
SELECT set_config('synchronous_commit', 'local', false) WHERE current_setting('synchronous_commit') = 'off'"""

# One schema: the first one with SHM's history of migrations, otherwise the first one in which this role may create
# tables. Candidates are the role's search_path, a schema with the role's name, and public. Names in a second schema
# could replace ours.
ONE_SCHEMA = """
SELECT set_config('search_path', quote_ident(schema.nspname), false)
FROM unnest(current_schemas(false) || ARRAY[current_user, 'public'::name]) WITH ORDINALITY AS candidate (name, position)
JOIN pg_catalog.pg_namespace AS schema ON schema.nspname = candidate.name
WHERE has_schema_privilege(schema.oid, 'USAGE') AND schema.nspname !~ '^pg_' AND schema.nspname <> 'information_schema'
ORDER BY
    EXISTS (
        SELECT FROM pg_catalog.pg_class AS history
        JOIN pg_catalog.pg_attribute AS checksum ON checksum.attrelid = history.oid AND checksum.attname = 'checksum'
        WHERE history.relnamespace = schema.oid AND history.relname = 'schema_migrations'
    ) DESC,
    has_schema_privilege(schema.oid, 'CREATE') DESC,
    candidate.position
LIMIT 1"""

SESSION_OPTIONS = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SESSION_SETTINGS.items())
PIN_SESSION = ";".join(
    [
        NEWER_SETTINGS,
        *(f"SET {name} = '{value}'" for name, value in SESSION_SETTINGS.items()),
        DURABLE_COMMITS,
        ONE_SCHEMA,
    ]
)
