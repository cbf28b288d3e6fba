"""Failures of the HTTP exchange itself, as the same google.rpc.Status that services answer with."""

from __future__ import annotations

from collections.abc import Iterable

from chassis import errors


class HttpFailure(Exception):
    """An error whose HTTP status is not the one of its code, with the headers that go with it."""

    def __init__(self, status: int, error: errors.Error, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(str(error))
        self.http_status = status
        self.error = error
        self.headers = tuple(headers)


def no_such_path(path: str) -> HttpFailure:
    """404."""
    return HttpFailure(
        404,
        errors.NotFound(f"no method is served at {path!r}", reason="PATH_NOT_FOUND", metadata={"path": path}),
    )


def method_not_allowed(method: str, path: str, allowed: Iterable[str]) -> HttpFailure:
    """405 with Allow."""
    names = ", ".join(sorted(allowed))
    error = errors.Unimplemented(
        f"{path!r} does not take {method}; it takes {names}",
        reason="METHOD_NOT_ALLOWED",
        metadata={"method": method, "allow": names},
    )
    return HttpFailure(405, error, [(b"allow", names.encode())])


def unsupported_media_type(given: str, wanted: str) -> HttpFailure:
    """415 with Accept."""
    error = errors.InvalidArgument(
        f"the request body is {given!r}; send {wanted}",
        reason="UNSUPPORTED_MEDIA_TYPE",
        metadata={"contentType": given, "accepted": wanted},
    )
    return HttpFailure(415, error, [(b"accept", wanted.encode())])


def unsupported_encoding(given: str) -> HttpFailure:
    """415 for a compressed body."""
    error = errors.InvalidArgument(
        f"the request body is encoded as {given!r}; send it without Content-Encoding",
        reason="UNSUPPORTED_CONTENT_ENCODING",
        metadata={"contentEncoding": given},
    )
    return HttpFailure(415, error, [(b"accept-encoding", b"identity")])


def not_acceptable(accept: str, offered: Iterable[str]) -> HttpFailure:
    """406."""
    names = ", ".join(offered)
    error = errors.InvalidArgument(
        f"the answer comes as {names}; the request accepts only {accept!r}",
        reason="NOT_ACCEPTABLE",
        metadata={"accept": accept, "offered": names},
    )
    return HttpFailure(406, error)


class BodyTooLarge(errors.ResourceExhausted):
    """A body beyond a limit, wherever that is noticed. Over HTTP it is 413, and the connection ends with it:
    what is still to come of the body is read by nobody.
    """

    http_status = 413
    headers = ((b"connection", b"close"),)

    def __init__(self, limit: int, what: str = "request body") -> None:
        super().__init__(
            f"the {what} is larger than {limit} bytes (the service's setting limits.max_body_bytes)",
            reason="BODY_TOO_LARGE",
            metadata={"limit": str(limit)},
        )


def too_large(limit: int, what: str = "request body") -> HttpFailure:
    """413."""
    error = BodyTooLarge(limit, what)
    return HttpFailure(error.http_status, error, error.headers)
