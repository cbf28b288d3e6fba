"""Authentication: one `Authenticator` for gRPC, the data path and REST.

Callers prove who they are by a bearer token or a client certificate. Configured tokens are kept as digests
and compared in constant time; a service adds verifiers of its own (API keys) with
`Authenticator.add_verifier`. Neither tokens nor digests are logged or put into errors.
"""

import contextvars
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from chassis import errors
from chassis.identity import Identity
from chassis.settings import AuthSettings
from chassis.telemetry.logs import get_logger

_RELOAD_INTERVAL = 1.0  # seconds between looks at the token file: a stat per call would be half of its cost
_current: contextvars.ContextVar[Identity | None] = contextvars.ContextVar("identity", default=None)


class TokenVerifier(Protocol):
    """Knows some bearer tokens."""

    def verify(self, token: str) -> Identity | None:
        """The identity of a token, None when it is not one of mine. Fast, in memory, in constant time."""
        ...


def current_identity() -> Identity | None:
    """Who makes the control-plane call being served; None without authentication."""
    return _current.get()


def set_current_identity(identity: Identity | None) -> contextvars.Token[Identity | None]:
    """Used by the faces of the chassis; gives the token for `reset_current_identity`."""
    return _current.set(identity)


def reset_current_identity(token: contextvars.Token[Identity | None]) -> None:
    """Ends what `set_current_identity` began."""
    _current.reset(token)


class Authenticator:
    """Decides who a caller is, or that the call is refused.

    `enabled` is false when nothing is configured; then everybody is let in as nobody (`None`).
    """

    def __init__(self, settings: AuthSettings, *, mutual_tls: bool = False) -> None:
        self._verifiers: list[TokenVerifier] = []
        self.mutual_tls = mutual_tls
        self.exempt_services = frozenset(settings.exempt_services)
        self.exempt_paths = frozenset(settings.exempt_paths)
        key = settings.hmac_key.get_secret_value().encode() if settings.hmac_key else None
        if settings.tokens is not None:
            lines = settings.tokens.get_secret_value().replace(",", "\n").splitlines()
            self._verifiers.append(ConfiguredTokens(parse_tokens(lines, "auth.tokens"), key))
        if settings.tokens_file is not None:
            self._verifiers.append(TokenFile(settings.tokens_file, key))

    @property
    def enabled(self) -> bool:
        """Whether callers must say who they are."""
        return self.mutual_tls or bool(self._verifiers)

    def add_verifier(self, verifier: TokenVerifier) -> None:
        """Asks this verifier too, after the configured tokens."""
        self._verifiers.append(verifier)

    def authenticate(self, authorization: str | None, certificate: Sequence[str] = ()) -> Identity | None:
        """The caller's identity from its `authorization` value and the names in its verified certificate.

        Raises Unauthenticated. A wrong token is refused even from a caller whose certificate is right.
        """
        if not self.enabled:
            return None
        if authorization is not None and self._verifiers:
            return self._verify(authorization)
        if certificate:
            return Identity(certificate[0], "mtls")
        raise errors.Unauthenticated(
            "no credentials: send 'authorization: Bearer TOKEN'", reason="CREDENTIALS_MISSING"
        )

    def _verify(self, authorization: str) -> Identity:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise errors.Unauthenticated(
                "the authorization must be 'Bearer TOKEN'", reason="CREDENTIALS_MALFORMED"
            )
        for verifier in self._verifiers:
            identity = verifier.verify(token)
            if identity is not None:
                return identity
        raise errors.Unauthenticated("the token is not valid", reason="CREDENTIALS_INVALID")


class TokenEntry:
    """One configured token: a name and a digest. Plain tokens are hashed when read and forgotten."""

    __slots__ = ("algorithm", "digest", "name")

    def __init__(self, name: str, algorithm: str, digest: bytes) -> None:
        self.name = name
        self.algorithm = algorithm
        self.digest = digest


class ConfiguredTokens:
    """A fixed set of tokens."""

    def __init__(self, entries: Iterable[TokenEntry], hmac_key: bytes | None) -> None:
        self._entries = tuple(entries)
        self._key = hmac_key
        if hmac_key is None and any(e.algorithm == "hmac-sha256" for e in self._entries):
            raise errors.InvalidArgument(
                "tokens given as hmac-sha256 need the setting auth.hmac_key", reason="HMAC_KEY_MISSING"
            )

    def verify(self, token: str) -> Identity | None:
        """Compares with every entry whatever matched before, so that time tells nothing."""
        raw = token.encode()
        digests = {"sha256": hashlib.sha256(raw).digest()}
        if self._key is not None:
            digests["hmac-sha256"] = hmac.digest(self._key, raw, "sha256")
        found = None
        for entry in self._entries:
            if hmac.compare_digest(digests[entry.algorithm], entry.digest):
                found = entry
        return Identity(found.name, "token") if found else None


class TokenFile:
    """A file of tokens, read again when it changes. One that breaks later keeps the last good tokens."""

    def __init__(
        self, path: Path, hmac_key: bytes | None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._key = hmac_key
        self._monotonic = monotonic
        self._looked = monotonic()
        self._stamp = self._stat()
        self._tokens = self._read()

    def verify(self, token: str) -> Identity | None:
        """As the file says now, give or take a second."""
        now = self._monotonic()
        if now - self._looked >= _RELOAD_INTERVAL:
            self._looked = now
            self._reload()
        return self._tokens.verify(token)

    def _reload(self) -> None:
        log = get_logger("penstock.auth")
        try:
            stamp = self._stat()
            if stamp == self._stamp:
                return
            self._tokens = self._read()
            self._stamp = stamp
            log.info("token file read again", path=str(self._path))
        except errors.InvalidArgument as error:
            log.error("token file is broken, keeping the tokens read before", error=str(error))

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = os.stat(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> ConfiguredTokens:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(self._path, error) from error
        return ConfiguredTokens(parse_tokens(text.splitlines(), str(self._path)), self._key)


def parse_tokens(lines: Iterable[str], where: str) -> list[TokenEntry]:
    """The entries of `name:token`, `name:sha256:HEX` and `name:hmac-sha256:HEX` lines."""
    entries = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, rest = text.partition(":")
        algorithm, more, digest = rest.partition(":")
        if not separator or not name or not rest:
            raise _broken(where, number, "must be 'name:token', 'name:sha256:HEX' or 'name:hmac-sha256:HEX'")
        if more and algorithm in ("sha256", "hmac-sha256"):
            entries.append(TokenEntry(name, algorithm, _digest(digest, where, number)))
        else:
            entries.append(TokenEntry(name, "sha256", hashlib.sha256(rest.encode()).digest()))
    return entries


def certificate_names(auth_context: Mapping[str, Sequence[bytes]]) -> tuple[str, ...]:
    """The names in a verified client certificate, as gRPC tells them: URIs and DNS names, then the common
    name.
    """
    names = auth_context.get("x509_subject_alternative_name", ()), auth_context.get("x509_common_name", ())
    return tuple(
        (name.decode(errors="replace") if isinstance(name, bytes) else str(name))
        for group in reversed(names)
        for name in group
    )


def _digest(text: str, where: str, number: int) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise _broken(where, number, "the digest must be 64 hexadecimal digits")
    return digest


def _broken(where: str, number: int, what: str) -> errors.InvalidArgument:
    # The line's content is a secret: only its place is told.
    return errors.InvalidArgument(f"{where}, line {number}: {what}", reason="TOKENS_INVALID")


def _unreadable(path: Path, error: Exception) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"the token file {path} cannot be read: {error}", reason="TOKENS_UNREADABLE"
    )
