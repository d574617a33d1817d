"""Descriptions of failed connections to PostgreSQL: a cause and a remedy, without the DSN and its password.

A failed connection has no SQLSTATE, only libpq's English message, so these patterns match the message. Of an unknown
message the first line is used.
"""

import re

import psycopg2
from psycopg2.extensions import parse_dsn

from shm.core.errors import ConfigurationError

REMEDIES = [
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (
            r'password authentication failed for user "([^"]*)"',
            "PostgreSQL refused the password of the role {0}. Correct it in SHM_DB_DSN.",
        ),
        (
            r"no password supplied",
            "PostgreSQL requires a password, and SHM_DB_DSN has none. Add one, or a password file (PGPASSFILE).",
        ),
        (
            r'(?:Peer|Ident) authentication failed for user "([^"]*)"',
            "PostgreSQL admits the role {0} only to the system user of that name. Run SHM as that user, or allow "
            "scram-sha-256 in pg_hba.conf and set a password in SHM_DB_DSN.",
        ),
        (
            r'database "([^"]*)" does not exist',
            "The database {0} does not exist. Create it with `createdb {0}`, or correct its name in SHM_DB_DSN.",
        ),
        (
            r'role "([^"]*)" does not exist',
            "The role {0} does not exist. Create it with `createuser --pwprompt {0}`, or correct its name in "
            "SHM_DB_DSN.",
        ),
        (
            r'role "([^"]*)" is not permitted to log in',
            'The role {0} may not log in. Run `ALTER ROLE "{0}" LOGIN`, or use another one in SHM_DB_DSN.',
        ),
        (
            r'permission denied for database "([^"]*)"',
            'The role in SHM_DB_DSN may not connect to the database {0}. Run `GRANT CONNECT ON DATABASE "{0}" TO` this '
            "role.",
        ),
        (
            r"server does not support SSL",
            "The sslmode in SHM_DB_DSN requires TLS, which PostgreSQL does not offer. Set ssl = on in "
            "postgresql.conf, or sslmode=prefer on a trusted network.",
        ),
        (
            r"certificate verify failed|server certificate for|root certificate file",
            "The TLS certificate of PostgreSQL could not be verified. Set sslrootcert in SHM_DB_DSN to the certificate "
            "of its authority, and use the host name that the certificate is issued for.",
        ),
        (
            r"no pg_hba\.conf entry .*no encryption",
            "PostgreSQL admits no connection without TLS from here as this role. Set sslmode=require in SHM_DB_DSN, or "
            "add a line to pg_hba.conf.",
        ),
        (
            r"no pg_hba\.conf entry",
            "PostgreSQL admits no connection from here as this role to this database. Add a line to pg_hba.conf.",
        ),
        (
            r'could not translate host name "([^"]*)"',
            "The host name {0} cannot be resolved. Correct it in SHM_DB_DSN, or wait for its DNS entry.",
        ),
        (
            r"Connection refused",
            "No server listens on the host and port of SHM_DB_DSN. Start PostgreSQL there, or correct the address.",
        ),
        (
            r"No such file or directory",
            "The socket of PostgreSQL does not exist. Start PostgreSQL, or correct the path in SHM_DB_DSN.",
        ),
        (
            r"timeout expired|Connection timed out",
            "PostgreSQL did not answer in time. Check the address in SHM_DB_DSN and the firewalls between here and it.",
        ),
        (
            r"too many clients|remaining connection slots|too many connections for",
            "All connections of PostgreSQL are in use. Raise its max_connections, or lower SHM_DB_POOL or SHM_WORKERS.",
        ),
        (
            r'unrecognized configuration parameter "client_connection_check_interval"',
            "This PostgreSQL is older than 14. Upgrade it.",
        ),
        (
            r"the database system is (starting up|shutting down|in recovery mode)",
            "PostgreSQL is {0}.",
        ),
    )
]

EXAMPLE_URL = "postgresql://user:password@host/database"
KEY_VALUE_FORM = "libpq's form host=db dbname=shm user=shm password='...', where \\' and \\\\ stand for ' and \\"
PORTS = re.compile(r"[0-9]*(,[0-9]*)*")


def describe_connect_error(error: Exception) -> str:
    """The cause of a failed connection and its remedy."""
    text = str(error).strip()
    for pattern, remedy in REMEDIES:
        if match := pattern.search(text):
            return remedy.format(*match.groups())
    first, _, _ = text.partition("\n")
    return first.strip() or type(error).__name__


def check_dsn(dsn: str) -> None:
    """Raises ConfigurationError for a DSN that libpq cannot parse, or parses differently than intended.

    An `@` or `/` in a password that is not percent-encoded becomes part of the host, the port or the database name,
    and libpq's error message would show it.
    """
    try:
        parts = parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        raise ConfigurationError(f"SHM_DB_DSN is invalid: expected {EXAMPLE_URL}, {KEY_VALUE_FORM}.") from None
    if _is_url_with_stray_characters(dsn) or not PORTS.fullmatch(str(parts.get("port", ""))):
        raise ConfigurationError(
            "SHM_DB_DSN is invalid: in a URL, characters such as @, /, ? and # in a user name or password have to be "
            f"percent-encoded (%40, %2F, %3F, %23). The value can also be written as {KEY_VALUE_FORM}."
        )


def _is_url_with_stray_characters(dsn: str) -> bool:
    """Whether an `@` follows the end of user and password, so that a part of them is in the host or database name."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        return False
    user_and_password = re.match("[^@/]*@", rest)  # as libpq finds their end
    host_and_database = rest[user_and_password.end() if user_and_password else 0 :].partition("?")[0]
    return "@" in host_and_database
