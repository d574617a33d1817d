"""The certificate authorities that prove a server's name.

    SSL_CERT_FILE, SSL_CERT_DIR   as OpenSSL reads them; if one is set, nothing below is used
    REQUESTS_CA_BUNDLE            a file or a directory, as for requests
    CURL_CA_BUNDLE                the same, as for curl
    the system's authorities      without a variable
    certifi                       where the system has none and the host has certifi

Certificates and names are verified in every case. OpenSSL loads a file of authorities as a whole, which takes a
megabyte, and of a directory with hashed names only what verifies the server. So the system's directory is tried first,
where it has one, and its file only if that does not verify the server.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from shm_sdk import forking

OPENSSL_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class NoAuthoritiesError(OSError):
    """There are no certificate authorities, or the named ones cannot be read."""


def create_context(environment: Mapping[str, str], *, with_all_authorities: bool = True) -> ssl.SSLContext:
    """A verifying context. Raises NoAuthoritiesError.

    Without `with_all_authorities` it may lack some of the system's.
    """
    openssl_variable = next((name for name in OPENSSL_VARIABLES if environment.get(name)), None)
    if openssl_variable is None:
        for variable in BUNDLE_VARIABLES:
            if path := environment.get(variable):
                return _load_bundle(variable, Path(path))
        directory = ssl.get_default_verify_paths().capath
        if not with_all_authorities and ssl.SSLContext.__module__ == "ssl" and _has_hashed_names(directory):
            return ssl.create_default_context(capath=directory)
    context = ssl.create_default_context()
    if _has_authorities(context):
        return context
    if openssl_variable is not None:
        raise NoAuthoritiesError(f"{openssl_variable} names no certificate authorities")
    return _load_certifi()


def _load_bundle(variable: str, path: Path) -> ssl.SSLContext:
    """A context with the authorities of a file, or of a directory of files with hashed names."""
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=str(path))
        return ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        raise NoAuthoritiesError(f"{variable} names a file without certificates") from None
    except OSError as error:
        raise NoAuthoritiesError(f"{variable} names a file that cannot be read ({error.strerror})") from None


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Whether it has any. OpenSSL loads those of a directory when it needs them."""
    places = ssl.get_default_verify_paths()
    if places.cafile and Path(places.cafile).stat().st_size:
        return True
    if _has_hashed_names(places.capath):
        return True
    try:
        return context.cert_store_stats()["x509_ca"] > 0  # of Windows
    except NotImplementedError:  # the host's `truststore` asks the system itself
        return True


def _has_hashed_names(directory: str | None) -> bool:
    """Whether OpenSSL finds authorities in it."""
    return directory is not None and any(Path(directory).glob("*.[0-9]"))


def _load_certifi() -> ssl.SSLContext:
    with forking.import_lock:
        try:
            import certifi
        except ImportError:
            raise NoAuthoritiesError(
                "the system has no certificate authorities: install ca-certificates or certifi, or set SSL_CERT_FILE"
            ) from None
        file = certifi.where()
    return ssl.create_default_context(cafile=file)
