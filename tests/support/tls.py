"""A TLS server's certificate for `localhost`, by a certificate authority of the test."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Tls:
    """The TLS context of the server, and the file of the authority."""

    context: ssl.SSLContext
    authority: str


def create_tls(directory: Path) -> Tls:
    """A new authority, whose certificate is written to this directory."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Tls(context, str(file))
