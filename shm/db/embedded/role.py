"""The role that SHM uses in an embedded PostgreSQL: it owns the schema `public` of its database and nothing else.

So an error in SHM cannot read files of the machine, start programs, or change PostgreSQL's configuration.
"""

import time
from contextlib import closing

import psycopg2

from shm.core.errors import ConfigurationError
from shm.core.signals import exit_if_signalled

SUPERUSER = "postgres"  # only this module connects as that role
ROLE = "shm"

READY_TIMEOUT_S = 120  # a running server that another process has started may be in its crash recovery
POLL_INTERVAL_S = 0.1

IS_PREPARED = """
SELECT count(*) = 1 FROM pg_namespace WHERE nspname = 'public' AND nspowner = (
    SELECT oid FROM pg_roles WHERE rolname = %(role)s AND NOT rolsuper
)"""
PREPARE = f"""
DO $$
DECLARE
    relation record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} LOGIN;
    END IF;
    REVOKE ALL ON DATABASE postgres FROM PUBLIC;
    GRANT CONNECT ON DATABASE postgres TO {ROLE};
    ALTER SCHEMA public OWNER TO {ROLE};
END
$$"""  # noqa: S608 - constants only


def prepare_role(superuser_dsn: str) -> None:
    """Creates the role and makes it the owner of the schema, unless that is done."""
    with closing(_connect(superuser_dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(IS_PREPARED, {"role": ROLE})
        if cursor.fetchone() != (True,):
            cursor.execute(PREPARE)


def _connect(dsn: str) -> "psycopg2.extensions.connection":
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            return psycopg2.connect(dsn, connect_timeout=5, client_encoding="UTF8")
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise ConfigurationError("The embedded PostgreSQL does not accept connections.") from error
        exit_if_signalled()
        time.sleep(POLL_INTERVAL_S)
