"""Where the services are and who is calling.

Each value comes from the first of: an argument, an environment variable, the chosen profile of the
configuration file, the stack that `penstock up` left running on this machine, and the default ports.

Configuration file (`PENSTOCK_CONFIG`, else `$XDG_CONFIG_HOME/penstock/config.yaml`):

```yaml
current_profile: staging
profiles:
  staging:
    aigw: {grpc: gateway.example.com:443, rest: https://gateway.example.com}
    dplo: {grpc: deploy.example.com:443}
    mds: {grpc: packages.example.com:443}
    tls: {ca_file: /etc/penstock/ca.pem}
    token_file: /run/secrets/penstock-token
    project: digits
```
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from penstock_client.errors import InvalidArgument
from penstock_client.local import state

SERVICES = ("aigw", "dplo", "mds")


@dataclass(frozen=True)
class Address:
    """The two faces of one service."""

    grpc: str
    """`host:port`."""
    rest: str
    """Base URL, `http://host:port`."""


@dataclass(frozen=True)
class Tls:
    """How servers prove themselves and how we do; without files, the system's certificate authorities."""

    enabled: bool = False
    ca_file: Path | None = None
    """PEM certificates that servers' chains must end in."""
    cert_file: Path | None = None
    """PEM chain that we show (mutual TLS)."""
    key_file: Path | None = None
    """PEM key of `cert_file`."""


@dataclass(frozen=True)
class Settings:
    """Everything a client needs to know before its first call."""

    aigw: Address = Address("127.0.0.1:8500", "http://127.0.0.1:8501")
    dplo: Address = Address("127.0.0.1:8510", "http://127.0.0.1:8511")
    mds: Address = Address("127.0.0.1:8520", "http://127.0.0.1:8521")
    tls: Tls = field(default_factory=Tls)
    token: str | None = None
    """Bearer token sent with every call."""
    token_file: Path | None = None
    """File that holds the token; read again when it changes, so that short-lived tokens can be rotated."""
    project: str | None = None
    """Project meant where a name is given without one."""
    timeout: float = 30.0
    """Seconds that a call may take unless it is given its own."""
    source: str = "the default ports"
    """Where the addresses came from, in words, for messages."""

    def __post_init__(self) -> None:
        if self.token is not None and self.token_file is not None:
            raise InvalidArgument("give a token or a token file, not both", reason="SETTINGS_INVALID")
        if (self.tls.cert_file is None) != (self.tls.key_file is None):
            raise InvalidArgument(
                "a client certificate needs both cert_file and key_file", reason="SETTINGS_INVALID"
            )


def load(
    *, profile: str | None = None, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings for this process. InvalidArgument, naming file or variable, when something in them is
    wrong.
    """
    env = os.environ if environ is None else environ
    path = config or _config_path(env)
    document = _read(path) if path.exists() else {}
    chosen = profile or env.get("PENSTOCK_PROFILE") or document.get("current_profile")
    base = _from_profile(path, document, str(chosen)) if chosen else _from_stack(env)
    return _from_environment(base or Settings(), env)


def _config_path(env: Mapping[str, str]) -> Path:
    if explicit := env.get("PENSTOCK_CONFIG"):
        if not Path(explicit).exists():
            raise InvalidArgument(
                f"PENSTOCK_CONFIG names {explicit}, which does not exist", reason="SETTINGS_INVALID"
            )
        return Path(explicit)
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "penstock" / "config.yaml"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}", reason="SETTINGS_INVALID") from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise _wrong(path, "", "must be a mapping with `profiles`")
    _only(path, "", document, {"current_profile", "profiles"})
    return document


def _from_profile(path: Path, document: Mapping[str, Any], name: str) -> Settings:
    profiles = document.get("profiles") or {}
    if not isinstance(profiles, dict) or name not in profiles:
        known = ", ".join(sorted(profiles)) if isinstance(profiles, dict) and profiles else "none"
        raise InvalidArgument(
            f"there is no profile {name!r} in {path} (there: {known})", reason="PROFILE_UNKNOWN"
        )
    where = f"profiles.{name}"
    profile = profiles[name] or {}
    _only(path, where, profile, {*SERVICES, "tls", "token", "token_file", "project", "timeout"})
    settings = Settings(source=f"profile {name} of {path}")
    for service in SERVICES:
        if service in profile:
            entry = profile[service]
            entry = {"grpc": entry} if isinstance(entry, str) else entry
            _only(path, f"{where}.{service}", entry, {"grpc", "rest"})
            settings = _with_address(settings, service, **{k: str(v) for k, v in entry.items()})
    if "tls" in profile:
        entry = {"enabled": True, **(profile["tls"] or {})}
        _only(path, f"{where}.tls", entry, {f.name for f in fields(Tls)})
        settings = replace(
            settings,
            tls=Tls(
                bool(entry.pop("enabled")), **{key: _path(path.parent, value) for key, value in entry.items()}
            ),
        )
    for key in ("token", "project"):
        if key in profile:
            settings = replace(settings, **{key: str(profile[key])})  # type: ignore[arg-type]  # key names a str field
    if "token_file" in profile:
        settings = replace(settings, token_file=_path(path.parent, profile["token_file"]))
    if "timeout" in profile:
        settings = replace(settings, timeout=_seconds(profile["timeout"], f"{path}: {where}.timeout"))
    return settings


def _from_stack(env: Mapping[str, str]) -> Settings | None:
    stack = state.read(state.folder(env))
    if stack is None:
        return None
    addresses = {
        name: Address(entry.grpc, entry.rest) for name, entry in stack.services.items() if name in SERVICES
    }
    return replace(Settings(source=f"the stack that `penstock up` started ({stack.folder})"), **addresses)  # type: ignore[arg-type]  # keys are SERVICES


def _from_environment(settings: Settings, env: Mapping[str, str]) -> Settings:
    for service in SERVICES:
        prefix = f"PENSTOCK_{service.upper()}"
        found = {
            face: env[name] for face, name in (("grpc", prefix), ("rest", f"{prefix}_REST")) if env.get(name)
        }
        if found:
            settings = replace(_with_address(settings, service, **found), source="the environment")
    tls = settings.tls
    for key in ("ca_file", "cert_file", "key_file"):
        if value := env.get(f"PENSTOCK_TLS_{key.upper()}"):
            tls = replace(tls, enabled=True, **{key: Path(value)})
    if value := env.get("PENSTOCK_TLS"):
        tls = replace(tls, enabled=value.lower() not in {"0", "false", "off", "no"})
    settings = replace(settings, tls=tls)
    if env.get("PENSTOCK_TOKEN") and env.get("PENSTOCK_TOKEN_FILE"):
        raise InvalidArgument(
            "set PENSTOCK_TOKEN or PENSTOCK_TOKEN_FILE, not both", reason="SETTINGS_INVALID"
        )
    if value := env.get("PENSTOCK_TOKEN"):
        settings = replace(settings, token=value, token_file=None)
    if value := env.get("PENSTOCK_TOKEN_FILE"):
        settings = replace(settings, token=None, token_file=Path(value))
    if value := env.get("PENSTOCK_PROJECT"):
        settings = replace(settings, project=value)
    if value := env.get("PENSTOCK_TIMEOUT"):
        settings = replace(settings, timeout=_seconds(value, "PENSTOCK_TIMEOUT"))
    return settings


def _with_address(
    settings: Settings, service: str, *, grpc: str | None = None, rest: str | None = None
) -> Settings:
    current: Address = getattr(settings, service)
    if grpc is not None and rest is None and grpc != current.grpc:
        # Only one face was named: the other keeps the convention of the next port, and never points
        # elsewhere.
        host, _, port = grpc.rpartition(":")
        rest = f"http://{host}:{int(port) + 1}" if port.isdigit() else f"http://{grpc}"
    return replace(settings, **{service: Address(grpc or current.grpc, rest or current.rest)})  # type: ignore[arg-type]  # names an Address field


def _path(base: Path, value: object) -> Path:
    return (base / Path(str(value)).expanduser()).absolute()


def _seconds(value: object, where: str) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise InvalidArgument(
            f"{where} must be a number of seconds above 0, not {value!r}", reason="SETTINGS_INVALID"
        )
    return seconds


def _only(path: Path, where: str, entry: object, allowed: set[str]) -> None:
    if not isinstance(entry, dict):
        raise _wrong(path, where, f"must be a mapping of {', '.join(sorted(allowed))}")
    for key in entry:
        if key not in allowed:
            raise _wrong(
                path, f"{where}.{key}".lstrip("."), f"is unknown; allowed: {', '.join(sorted(allowed))}"
            )


def _wrong(path: Path, where: str, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"{path}: {where} {what}" if where else f"{path} {what}", reason="SETTINGS_INVALID"
    )
