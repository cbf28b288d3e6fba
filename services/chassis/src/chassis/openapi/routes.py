"""``/openapi.json`` and ``/docs``: the document and the page that shows it, from this process alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chassis.openapi.document import Info, document
from chassis.rest import jsontext
from chassis.rest.descriptors import Descriptors

_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
_FILES = {
    "/docs": ("page.html", "text/html; charset=utf-8"),
    "/docs/page.css": ("page.css", "text/css; charset=utf-8"),
    "/docs/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def routes(descriptors: Descriptors, services: Sequence[str], info: Info) -> list[Route]:
    """Starlette routes for ``/openapi.json`` and ``/docs``; the document is made once, now."""
    found = [
        _fixed("/openapi.json", jsontext.dumps(document(descriptors, services, info)), "application/json")
    ]
    page = resources.files("chassis.openapi").joinpath("page")
    for path, (name, kind) in _FILES.items():
        found.append(_fixed(path, page.joinpath(name).read_bytes(), kind))
    return found


def _fixed(path: str, body: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"etag": tag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if path == "/docs":
        headers["content-security-policy"] = _POLICY

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return Route(path, answer, methods=["GET"])
