"""TLS without a proxy: the server's certificate with its key, which are loaded again when they were renewed."""

import asyncio
import logging
import ssl
from pathlib import Path

from shm.core.errors import ConfigurationError
from shm.core.logs import RateLimitedLogger
from shm.core.settings import Settings

CHECK_INTERVAL_S = 1.0  # between two looks at the files, which cost some microseconds

logger = logging.getLogger(__name__)
rate_limited = RateLimitedLogger(logger)


class ServerCertificate:
    """The certificate of a server. `context` is that of all its connections; new ones use the newest certificate."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._versions = self._read_versions()
        self.context = self._load()

    @classmethod
    def of(cls, settings: Settings) -> "ServerCertificate | None":
        """That of SHM_TLS_CERT and SHM_TLS_KEY; None if they are not set. Raises ConfigurationError."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    async def run(self) -> None:
        """Loads changed files, until cancelled. While they are unusable, the last certificate stays."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            versions = self._read_versions()
            if versions == self._versions:
                continue
            try:
                self._load()  # of a context that is thrown away: one file may be replaced before the other
                self.context.load_cert_chain(*self._files, password=_no_passphrase)
            except (ConfigurationError, OSError, ValueError) as error:
                rate_limited.warning("the renewed certificate cannot be used yet", str(error))
                continue
            self._versions = versions
            logger.info("loaded the renewed certificate")

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = self._files
        try:
            for file in self._files:
                if file.exists() and not file.is_file():
                    raise ConfigurationError(f"{file} is no regular file: a pipe, for example, can be read only once.")
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"The certificate {certificate} and the key {key} cannot be used ({error.reason or 'not in PEM'}): "
                "SHM_TLS_CERT is the certificate with its chain, SHM_TLS_KEY its key without a passphrase, both in PEM."
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"The certificate {certificate} or the key {key} cannot be read: {error.strerror}."
            ) from None
        except ValueError:
            raise ConfigurationError(f"The key {key} has a passphrase: SHM_TLS_KEY is a key without one.") from None
        return context

    def _read_versions(self) -> tuple[tuple[int, int, int], ...]:
        """What identifies the present content of the files; zeros for a missing one."""
        versions = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                versions.append((0, 0, 0))
            else:
                versions.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(versions)


def _no_passphrase() -> str:
    """Called for a key with a passphrase, which OpenSSL would otherwise ask the terminal for."""
    raise ValueError("a passphrase is needed")
