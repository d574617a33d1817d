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
            "PostgreSQL refused the password of the role {0}. Correct it in {source}.",
        ),
        (
            r"no password supplied",
            "PostgreSQL requires a password, and {source} has none. Add one, or a password file (PGPASSFILE).",
        ),
        (
            r'(?:Peer|Ident) authentication failed for user "([^"]*)"',
            "PostgreSQL admits the role {0} only to the system user of that name. Run SHM as that user, or allow "
            "scram-sha-256 in pg_hba.conf and set a password in {source}.",
        ),
        (
            r'database "([^"]*)" does not exist',
            "The database {0} does not exist. Create it with `createdb {0}`, or correct its name in {source}.",
        ),
        (
            r'role "([^"]*)" does not exist',
            "The role {0} does not exist. Create it with `createuser --pwprompt {0}`, or correct its name in {source}.",
        ),
        (
            r'role "([^"]*)" is not permitted to log in',
            'The role {0} may not log in. Run `ALTER ROLE "{0}" LOGIN`, or use another one in {source}.',
        ),
        (
            r'permission denied for database "([^"]*)"',
            'The role in {source} may not connect to the database {0}. Run `GRANT CONNECT ON DATABASE "{0}" TO` this '
            "role.",
        ),
        (
            r"server does not support SSL",
            "The sslmode in {source} requires TLS, which PostgreSQL does not offer. Set ssl = on in "
            "postgresql.conf, or sslmode=prefer on a trusted network.",
        ),
        (
            r"certificate verify failed|server certificate for|root certificate file",
            "The TLS certificate of PostgreSQL could not be verified. Set sslrootcert in {source} to the certificate "
            "of its authority, and use the host name that the certificate is issued for.",
        ),
        (
            r"no pg_hba\.conf entry .*no encryption",
            "PostgreSQL admits no connection without TLS from this machine as this role. Set sslmode=require in "
            "{source}, or add a line to pg_hba.conf.",
        ),
        (
            r"no pg_hba\.conf entry",
            "PostgreSQL admits no connection from this machine as this role to this database. Add a line to "
            "pg_hba.conf.",
        ),
        (
            r'could not translate host name "([^"]*)"',
            "The host name {0} cannot be resolved. Correct it in {source}, or wait for its DNS entry.",
        ),
        (
            r"Connection refused",
            "No server listens on the host and port of {source}. Start PostgreSQL there, or correct the address.",
        ),
        (
            r"local user with ID (\d+) does not exist",
            "The user ID {0}, which runs SHM, has no entry in /etc/passwd, and {source} names no role. Add a role to "
            "{source}, such as user=shm.",
        ),
        (
            r"due to transaction timeout",
            "The transaction_timeout of the role or of the database is shorter than it takes to connect. Run `ALTER "
            "ROLE ... RESET transaction_timeout`, or `ALTER DATABASE ... RESET transaction_timeout`.",
        ),
        (
            r"No such file or directory",
            "The socket of PostgreSQL does not exist. Start PostgreSQL, or correct the path in {source}.",
        ),
        (
            r"timeout expired|Connection timed out",
            "PostgreSQL did not answer in time. Check the address in {source} and the firewalls in between.",
        ),
        (
            r'too many connections for (role|database) "([^"]*)"',
            "All connections that the {0} {1} may have are in use. Raise its CONNECTION LIMIT, or lower SHM_DB_POOL or "
            "SHM_WORKERS.",
        ),
        (
            r"too many clients|remaining connection slots",
            "All connections of PostgreSQL are in use. Raise its max_connections, or lower SHM_DB_POOL or SHM_WORKERS.",
        ),
        (
            r'unrecognized configuration parameter "client_connection_check_interval"',
            "This PostgreSQL is older than 14, and SHM requires 15 or newer. Upgrade it, or name another server in "
            "{source}.",
        ),
        (
            r"the database system is (starting up|shutting down|in recovery mode)",
            "PostgreSQL is {0}.",
        ),
    )
]

EXAMPLE_URL = "postgresql://user:password@host/database"
KEY_VALUE_FORM = "libpq's form host=db dbname=shm user=shm password='...', where \\' and \\\\ stand for ' and \\"
PORT_LIST = re.compile(r"[0-9]*(,[0-9]*)*")


def describe_connect_error(error: Exception, source: str) -> str:
    """The cause of a failed connection and its remedy. `source`: the variable or flag that the DSN comes from."""
    text = str(error).strip()
    for pattern, remedy in REMEDIES:
        if match := pattern.search(text):
            return remedy.format(*match.groups(), source=source)
    first, _, _ = text.partition("\n")
    return first.strip() or type(error).__name__


def check_dsn(dsn: str, source: str) -> None:
    """Raises ConfigurationError for a DSN that libpq cannot parse, or parses differently than intended.

    `source` is the variable or flag that the DSN comes from. An `@`, `/` or `?` in a password that is not
    percent-encoded makes a part of the password the host, the port, the database name or a parameter, and libpq's error
    message would show it.
    """
    try:
        parts = parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        raise ConfigurationError(f"{source} is invalid: expected {EXAMPLE_URL}, {KEY_VALUE_FORM}.") from None
    if _is_url_with_stray_characters(dsn) or not PORT_LIST.fullmatch(str(parts.get("port", ""))):
        raise ConfigurationError(
            f"{source} is invalid: in a URL, characters such as @, /, ? and # in a user name or password have to be "
            f"percent-encoded (%40, %2F, %3F, %23). The value can also be written as {KEY_VALUE_FORM}."
        )


def _is_url_with_stray_characters(dsn: str) -> bool:
    """Whether an `@` follows the end of user and password, so that a part of them may be in another part of the URL.

    The query may have one if no password precedes the host: `?password=p@ss`, `?host=@abstract`.
    """
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        return False
    user_and_password = re.match("[^@/]*@", rest)  # as libpq finds their end
    others = rest[user_and_password.end() if user_and_password else 0 :]
    has_password = user_and_password is not None and ":" in user_and_password[0]
    return "@" in (others if has_password else others.partition("?")[0])
