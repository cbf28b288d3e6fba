"""The errors that the gateway itself answers, each saying what was wrong, where, and what would be right."""

from collections.abc import Iterable, Sequence

from chassis import errors

_LISTED = 10


def _listing(items: Sequence[str], none: str) -> str:
    if not items:
        return none
    shown = ", ".join(items[:_LISTED])
    return shown if len(items) <= _LISTED else f"{shown} and {len(items) - _LISTED} more"


def unknown_model(
    model: str, known: Iterable[str], registered_versions: Sequence[str] = ()
) -> errors.NotFound:
    """No route for the model; `registered_versions` are those that have endpoints nevertheless."""
    routes = sorted(known)
    if registered_versions:
        text = (
            f"model {model!r} has no route, though endpoints of version "
            f"{_listing(registered_versions, '')} are registered: declare the route, or deploy the model"
        )
    elif "/" not in model:
        text = (
            f"model {model!r} is not known: through the gateway a model is named project/model; "
            f"routed models: {_listing(routes, 'none')}"
        )
    else:
        text = f"model {model!r} is not known; routed models: {_listing(routes, 'none')}"
    return errors.NotFound(text, reason="MODEL_NOT_FOUND", metadata={"model": model})


def unknown_version(model: str, version: str, known: Sequence[str]) -> errors.NotFound:
    """The model has a route, but no such version."""
    return errors.NotFound(
        f"model {model!r} has no version {version!r}; its versions: {_listing(known, 'none')}",
        reason="VERSION_NOT_FOUND",
        metadata={"model": model, "version": version},
    )


def no_ready_replica(model: str, version: str, weighted: Sequence[str], face: str) -> errors.Unavailable:
    """The version (or, if empty, each weighted version) has no replica that can be called."""
    what = f"version {version}" if version else f"its weighted versions ({_listing(weighted, 'none')})"
    verb = "has" if version else "have"
    return errors.Unavailable(
        f"model {model!r}: {what} {verb} no ready replica that answers {face}; "
        "replicas register themselves when they are ready",
        reason="NO_READY_REPLICA",
        metadata={"model": model, "version": version},
        retry_after=1.0,
    )


def model_missing(field: str) -> errors.InvalidArgument:
    """The request names no model."""
    text = "must be set: through the gateway a model is named project/model"
    return errors.InvalidArgument(
        f"the request names no model: {field} {text}",
        reason="MODEL_NAME_MISSING",
        violations=[errors.FieldViolation(field, text, "MODEL_NAME_MISSING")],
    )


def deadline_expired() -> errors.DeadlineExceeded:
    """The caller's deadline was over when the call arrived."""
    return errors.DeadlineExceeded(
        "the call's deadline was over before it could be forwarded", reason="DEADLINE_EXPIRED"
    )


def upstream_timeout(model: str, version: str, endpoint: str, seconds: float) -> errors.DeadlineExceeded:
    """A replica did not answer in the time that the call had."""
    return errors.DeadlineExceeded(
        f"endpoint {endpoint} of {model!r} version {version} did not answer within {seconds:.3g} s",
        reason="UPSTREAM_TIMEOUT",
        metadata={"model": model, "version": version, "endpoint": endpoint},
    )


def unreachable(
    model: str, version: str, endpoint: str, attempts: int, cause: errors.Error
) -> errors.Unavailable:
    """The last attempt's replica could not be reached and nothing else is left to try."""
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return errors.Unavailable(
        f"model {model!r} version {version} could not be reached in {tries}; "
        f"the last one, at endpoint {endpoint}: {cause.message}",
        reason="UPSTREAM_UNREACHABLE",
        metadata={"model": model, "version": version, "endpoint": endpoint, "attempts": str(attempts)},
        retry_after=1.0,
    )


def stream_changes_model(first: str, other: str) -> errors.InvalidArgument:
    """A message of a stream names another model or version than the first one did."""
    text = (
        f"a stream goes to one model: it began with {first} and cannot go on with {other}; "
        "open a second stream"
    )
    return errors.InvalidArgument(
        text,
        reason="STREAM_CHANGES_MODEL",
        violations=[errors.FieldViolation("model_name", text, "STREAM_CHANGES_MODEL")],
    )
