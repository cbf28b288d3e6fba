"""TLS of both faces and of channels, from files. Certificates that are renewed in place are picked up."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc

from chassis import errors
from chassis.settings import ChannelSettings, TlsSettings


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """gRPC credentials; with `client_ca_file`, callers without a certificate it signed are refused.

    The files are looked at for each connection, so a renewed certificate needs no restart.
    """
    assert settings.cert_file is not None
    assert settings.key_file is not None
    files = [settings.cert_file, settings.key_file, *([settings.client_ca_file] if settings.mutual else [])]
    reader = _Certificates(settings)
    for path in files:
        assert path is not None
        _read(path)
    # gRPC takes None for "as before"; its stubs do not say so.
    renewed = cast(Callable[[], grpc.ServerCertificateConfiguration], reader.renewed)
    return grpc.dynamic_ssl_server_credentials(
        reader.configuration(), renewed, require_client_authentication=settings.mutual
    )


class _Certificates:
    """The server's certificate files as gRPC wants them: the configuration now, and a newer one when there
    is one.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._stamp = _stamps(self._settings)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Read from the files."""
        cert, key, ca = self._settings.cert_file, self._settings.key_file, self._settings.client_ca_file
        assert cert is not None
        assert key is not None
        return grpc.ssl_server_certificate_configuration(
            [(_read(key), _read(cert))], root_certificates=_read(ca) if ca else None
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration when a file changed; None keeps the old one."""
        try:
            stamp = _stamps(self._settings)
            if stamp == self._stamp:
                return None
            configuration = self.configuration()
        except (OSError, errors.InvalidArgument):
            return None  # half-written files: look again at the next connection
        self._stamp = stamp
        return configuration


def _stamps(settings: TlsSettings) -> tuple[int, ...]:
    files = (settings.cert_file, settings.key_file, settings.client_ca_file)
    return tuple(path.stat().st_mtime_ns for path in files if path is not None and path.exists())


def channel_credentials(settings: ChannelSettings) -> grpc.ChannelCredentials:
    """gRPC channel credentials; without a CA file the system's roots are trusted."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.ca_file) if settings.ca_file else None,
        private_key=_read(settings.key_file) if settings.key_file else None,
        certificate_chain=_read(settings.cert_file) if settings.cert_file else None,
    )


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """The same for the REST face. A renewed server certificate is used from the next connection on."""
    context = _context(settings)
    newest = context
    stamp = _stamps(settings)

    def hello(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        nonlocal newest, stamp
        now = _stamps(settings)
        if now != stamp:
            try:
                newest = _context(settings)
            except errors.InvalidArgument:
                return  # half-written files: look again at the next connection
            stamp = now
        connection.context = newest

    context.sni_callback = hello  # called without a server name, too
    return context


def _context(settings: TlsSettings) -> ssl.SSLContext:
    cert, key, authority = settings.cert_file, settings.key_file, settings.client_ca_file
    assert cert is not None
    assert key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(lambda: context.load_cert_chain(cert, key), cert)
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load(lambda: context.load_verify_locations(authority), authority)
    return context


def peer_names(certificate: dict[str, object] | None) -> tuple[str, ...]:
    """The names of a verified peer certificate as `ssl` tells them, in the order `chassis.auth` uses."""
    if not certificate:
        return ()
    subject = certificate.get("subject", ())
    common = [value for part in _pairs(subject) for key, value in part if key == "commonName"]
    alternative = [value for _, value in _flat(certificate.get("subjectAltName", ()))]
    return (*common, *alternative)


def _pairs(subject: object) -> list[list[tuple[str, str]]]:
    return [list(part) for part in subject] if isinstance(subject, tuple) else []


def _flat(names: object) -> list[tuple[str, str]]:
    return list(names) if isinstance(names, tuple) else []


def _load(load: Callable[[], None], path: Path) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        raise errors.InvalidArgument(
            f"the TLS file {path} cannot be used: {error}", reason="TLS_FILE_INVALID"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.InvalidArgument(
            f"the TLS file {path} cannot be read: {error.strerror}", reason="TLS_FILE_UNREADABLE"
        ) from error
