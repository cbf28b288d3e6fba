"""Settings every service has, and how they are read: once, at start, from a YAML file and the environment.

Order, later wins: defaults, `--config` file, environment (`AIGW_GRPC__PORT`), overrides (command-line
options). Constructing a settings class reads nothing by itself, so tests are hermetic; only `load` reads. A
wrong value is an `errors.InvalidArgument` whose violations name the file key or the environment variable.
"""

import difflib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from chassis import errors

MIB = 1024 * 1024
S = TypeVar("S", bound="ServiceSettings")


def with_group_defaults(cls: type[BaseModel], values: Any) -> Any:
    """Keeps what a class sets in a group's default when only other fields of that group are given.

    Without this, `AIGW_GRPC__HOST` alone would lose the port that AigwSettings gives its gRPC face.
    """
    if not isinstance(values, Mapping):
        return values
    merged = dict(values)
    for name, field in cls.model_fields.items():
        if isinstance(field.default, BaseModel) and isinstance(merged.get(name), Mapping):
            kept = {key: getattr(field.default, key) for key in field.default.model_fields_set}
            merged[name] = deep_merge(kept, merged[name])
    return merged


def deep_merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, mapping by mapping."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = deep_merge(below, value)
        else:
            merged[key] = value
    return merged


class Group(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keep_group_defaults(cls, values: Any) -> Any:
        return with_group_defaults(cls, values)


class ListenSettings(Group):
    """Where one face of a service listens. Port 0 takes any free port."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    enabled: bool = True

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")


class TlsSettings(Group):
    """Certificates of both faces. PEM files; all unset means plain text.

    `client_ca_file` turns mutual TLS on: callers without a certificate it signed cannot connect.
    """

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: set both or none")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file (mutual TLS) needs cert_file and key_file")
        return self

    @property
    def enabled(self) -> bool:
        """Whether the faces speak TLS."""
        return self.cert_file is not None

    @property
    def mutual(self) -> bool:
        """Whether callers' certificates are verified."""
        return self.client_ca_file is not None


class AuthSettings(Group):
    """Who may call. All unset means nobody is asked who they are.

    `tokens_file` has one `name:token` or `name:sha256:HEX` or `name:hmac-sha256:HEX` a line (`#` comments)
    and is read again when it changes; `tokens` is the same, comma-separated, for the environment. `hmac_key`
    is needed for `hmac-sha256` digests. A verified client certificate (mutual TLS) is an identity as well.
    """

    tokens_file: Path | None = None
    tokens: SecretStr | None = None
    hmac_key: SecretStr | None = None
    exempt_services: tuple[str, ...] = (
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    )
    exempt_paths: tuple[str, ...] = ("/healthz", "/readyz", "/metrics")

    @property
    def enabled(self) -> bool:
        """Whether bearer tokens are configured."""
        return self.tokens_file is not None or self.tokens is not None


class TelemetrySettings(Group):
    """Traces, metrics and logs.

    `exporter`: `off` (no spans are made at all), `console` (spans to stderr), `file` (JSON lines appended to
    `file`, one span a line), `otlp` (gRPC to `endpoint`). Prometheus metrics are served in every case.
    `sample_ratio` is the share of traces started here that are recorded; a caller's decision wins
    (parent-based).
    """

    exporter: Literal["off", "console", "file", "otlp"] = "off"
    file: Path | None = None
    endpoint: str = "http://127.0.0.1:4317"
    headers: dict[str, SecretStr] = {}
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    metrics_interval: float = Field(default=15.0, gt=0)
    instance_id: str = ""
    resource: dict[str, str] = {}
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _file_named(self) -> Self:
        if self.exporter == "file" and self.file is None:
            raise ValueError("exporter 'file' needs the setting 'file' with the path to append spans to")
        return self


class LimitsSettings(Group):
    """Bounds on what callers may ask of one process.

    Bytes and counts; `default_deadline` (seconds) caps control-plane calls that set none,
    `max_concurrent_streams` is per connection, `max_concurrent_calls` per process (more get
    RESOURCE_EXHAUSTED at once). Over REST the head of a request must have come whole after `head_timeout`, a
    body may pause for `body_timeout`, and the taking of an answer for `send_timeout` (seconds).
    """

    max_message_bytes: int = Field(default=64 * MIB, gt=0)
    max_metadata_bytes: int = Field(default=16 * 1024, gt=0)
    max_concurrent_streams: int = Field(default=1024, gt=0)
    max_concurrent_calls: int | None = Field(default=None, gt=0)
    max_body_bytes: int = Field(default=64 * MIB, gt=0)
    max_connections: int | None = Field(default=None, gt=0)
    head_timeout: float = Field(default=20.0, gt=0)
    body_timeout: float = Field(default=60.0, gt=0)
    send_timeout: float = Field(default=60.0, gt=0)
    default_deadline: float = Field(default=60.0, gt=0)


class DrainSettings(Group):
    """How a service ends, in seconds.

    `settle` is how long it still accepts after it deregistered and reports NOT_SERVING, so that gateways
    learn of it first; `limit` how long calls in flight may take after accepting stopped.
    """

    settle: float = Field(default=0.25, ge=0)
    limit: float = Field(default=30.0, ge=0)


class ServiceSettings(BaseSettings):
    """What every service can be told; a service subclasses it, sets `env_prefix` and adds groups of its own.

    `insecure_listen` allows listening beyond loopback without authentication. `addresses_file` gets a JSON
    object with the addresses really bound (`grpc`, `rest`), written whole once the service serves: a
    launcher that asked for port 0 reads it.
    """

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="forbid", frozen=True)

    grpc: ListenSettings = ListenSettings()
    rest: ListenSettings = ListenSettings()
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    limits: LimitsSettings = LimitsSettings()
    drain: DrainSettings = DrainSettings()
    insecure_listen: bool = False
    addresses_file: Path | None = None
    reflection: bool = True
    channelz: bool = True

    @model_validator(mode="before")
    @classmethod
    def _keep_group_defaults(cls, values: Any) -> Any:
        return with_group_defaults(cls, values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: `load` reads the outside, nothing else does."""
        return (init_settings,)


class ChannelSettings(Group):
    """How to reach another service as a client.

    `address` is `host:port`. TLS is used when `tls` is set or a CA or certificate is given. `token_file`
    holds a bearer token (its first line) and is read again when it changes.
    """

    address: str = ""
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    token_file: Path | None = None
    token: SecretStr | None = None
    max_message_bytes: int = Field(default=64 * MIB, gt=0)
    keepalive: float = Field(default=30.0, gt=0)

    @property
    def secure(self) -> bool:
        """Whether the channel speaks TLS."""
        return self.tls or self.ca_file is not None or self.cert_file is not None


class _Environment(EnvSettingsSource):
    """pydantic-settings' own reading of nested variables, from a given mapping instead of the process."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


def load(
    cls: type[S],
    *,
    config: Path | None = None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> S:
    """Reads a service's settings. Raises `errors.InvalidArgument` naming each wrong file key or variable."""
    prefix = str(cls.model_config.get("env_prefix", ""))
    from_file = _read_file(config) if config is not None else {}
    try:
        from_environ = _Environment(cls, environ)()
    except SettingsError as error:
        raise _invalid([errors.FieldViolation(f"{prefix}*", f"{error}: {error.__cause__}")]) from error
    given = dict(overrides or {})
    unknown = _unknown_variables(cls, prefix, environ)
    if unknown:
        raise _invalid(unknown)
    try:
        return cls.model_validate(deep_merge(deep_merge(from_file, from_environ), given))
    except ValidationError as error:
        raise _invalid(
            [_violation(item, prefix, config, from_file, from_environ, given) for item in error.errors()]
        ) from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid([errors.FieldViolation(str(path), f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid([errors.FieldViolation(str(path), f"is not YAML: {error}")]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _invalid(
            [errors.FieldViolation(str(path), f"must be a mapping of settings, not {type(content).__name__}")]
        )
    return content


def _unknown_variables(
    cls: type[BaseSettings], prefix: str, environ: Mapping[str, str]
) -> list[errors.FieldViolation]:
    """Variables that look like misspelt settings; others (Kubernetes sets some) are ignored."""
    if not prefix:
        return []
    known = list(cls.model_fields)
    wrong = []
    for name in environ:
        if not name.lower().startswith(prefix.lower()):
            continue
        head = name[len(prefix) :].lower().split("__")[0]
        if head in known:
            continue
        near = difflib.get_close_matches(head, known, n=1, cutoff=0.75)
        if near or "__" in name[len(prefix) :]:
            meant = f"; did you mean {prefix}{near[0].upper()}?" if near else f"; known: {', '.join(known)}"
            wrong.append(errors.FieldViolation(name, f"is no setting{meant}"))
    return wrong


def _violation(
    item: Any,
    prefix: str,
    config: Path | None,
    from_file: Mapping[str, Any],
    from_environ: Mapping[str, Any],
    given: Mapping[str, Any],
) -> errors.FieldViolation:
    """One wrong value, named by where it came from."""
    path = [str(part) for part in item["loc"]]
    description = str(item["msg"]).removeprefix("Value error, ")
    if _has(given, path):
        return errors.FieldViolation(".".join(path) or "settings", f"{description} (command line)")
    if _has(from_environ, path):
        return errors.FieldViolation(prefix + "__".join(path).upper(), f"{description} (environment)")
    if _has(from_file, path):
        return errors.FieldViolation(".".join(path), f"{description} (in {config})")
    return errors.FieldViolation(
        ".".join(path) or "settings", f"{description} (set {prefix}{'__'.join(path).upper()})"
    )


def _has(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return bool(path)


def _invalid(violations: list[errors.FieldViolation]) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        "the settings are not valid", reason="SETTINGS_INVALID", violations=violations
    )


def client_tls_context(settings: ChannelSettings) -> ssl.SSLContext | None:
    """The same channel settings for an HTTP client; None for plain text."""
    if not settings.secure:
        return None
    context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
