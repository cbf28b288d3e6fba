"""Media types: what a request body is, and which form of answer a client takes."""

from __future__ import annotations

from collections.abc import Sequence

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
_NDJSON = frozenset((NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"))
ANSWERS_UNARY = (JSON,)
ANSWERS_STREAM = (NDJSON, SSE, "application/ndjson", "application/jsonl", JSON)


def split(content_type: str) -> tuple[str, dict[str, str]]:
    """The type in lower case and its parameters."""
    name, *rest = content_type.split(";")
    parameters = {}
    for item in rest:
        key, _, value = item.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"').lower()
    return name.strip().lower(), parameters


def is_json(content_type: str) -> bool:
    """Whether a body of this type is read as one JSON text in UTF-8."""
    name, parameters = split(content_type)
    utf8 = parameters.get("charset", "utf-8") in ("utf-8", "utf8", "us-ascii")
    return utf8 and (name == JSON or (name.startswith("application/") and name.endswith("+json")))


def is_ndjson(content_type: str) -> bool:
    """Whether a body of this type is JSON texts, one on each line."""
    return split(content_type)[0] in _NDJSON


def choose(accept: str | None, offered: Sequence[str]) -> str | None:
    """The offered type that an Accept header prefers (first of equals), or None when it takes none."""
    if not accept or accept.strip() == "*/*":
        return offered[0]
    ranges = [_range(item) for item in accept.split(",") if item.strip()]
    best: tuple[float, str] | None = None
    for name in offered:
        quality = _quality(name, ranges)
        if quality > 0 and (best is None or quality > best[0]):
            best = (quality, name)
    return best[1] if best else None


def _range(item: str) -> tuple[str, float]:
    name, parameters = split(item)
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 1.0
    return name, quality


def _quality(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Of the ranges that cover a type, the most specific one decides (RFC 9110, 12.5.1)."""
    family = name.split("/", 1)[0] + "/*"
    for wanted in (name, family, "*/*"):
        found = [quality for pattern, quality in ranges if pattern == wanted]
        if found:
            return max(found)
    return 0.0
