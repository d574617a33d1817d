"""Check of the certificate of a server that speaks TLS itself: it can be used, and for how long."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.server.checks.finding import Finding, Level
from shm.server.http.tls import ServerCertificate

WARNING_LEAD_TIME = timedelta(days=14)
SUBJECT = "tls"


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """No finding for a server without TLS."""
    if settings.tls_cert is None:
        return
    from cryptography import x509  # takes 30 ms, which only a server with TLS needs

    try:
        ServerCertificate.of(settings)
    except ConfigurationError as error:
        remedy = "Correct SHM_TLS_CERT and SHM_TLS_KEY, and let the user that runs the server read both files."
        yield Finding(Level.ERROR, SUBJECT, str(error), remedy)
        return
    try:
        (certificate, *_) = x509.load_pem_x509_certificates(settings.tls_cert.read_bytes())
    except (OSError, ValueError):  # OpenSSL reads more than cryptography does, such as TRUSTED CERTIFICATE
        text = f"it is unknown how long the certificate in {settings.tls_cert} is valid"
        remedy = f"`openssl x509 -enddate -noout -in {shlex.quote(str(settings.tls_cert))}` prints it."
        yield Finding(Level.NOTE, SUBJECT, text, remedy)
        return
    yield check_validity(f"the certificate in {settings.tls_cert}", certificate.not_valid_after_utc)


def check_validity(name: str, expires: datetime) -> Finding:
    """The finding about a certificate that expires then."""
    left = expires - datetime.now(UTC)
    text = f"{name} is valid until {expires:%Y-%m-%d}"
    remedy = "Renew it: installs and readers refuse an expired certificate."
    if left < timedelta():
        return Finding(Level.ERROR, SUBJECT, f"{name} expired on {expires:%Y-%m-%d}", remedy)
    if left < WARNING_LEAD_TIME:
        return Finding(Level.WARNING, SUBJECT, text, remedy)
    return Finding(Level.OK, SUBJECT, text)
