"""Finding the binding of a request path: a trie over path segments, built once, then only read.

Order of preference, segment by segment: a literal, then ``*``, then ``**``; and a path whose last segment
ends in a verb that some template declares is tried as that verb first, then as plain text. A template that
matches but not for the request's HTTP method does not stop the search: a less specific one that has the
method is taken, and only when there is none are the methods found on the way reported (for 405 and its Allow
header).

A match visits each trie node at most once, so its cost is bounded by the number of templates whatever the
path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Generic, TypeVar
from urllib.parse import unquote

from chassis.rest.template import Template, Variable, Wildcard

T = TypeVar("T")

ANY_METHOD = "*"
_ENCODED_SLASH = re.compile("(%2[Ff])")


class RouteConflict(ValueError):
    """Two bindings claim the same paths for the same HTTP method."""


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """A found binding with the path's raw (still percent-encoded) segments, the verb taken off."""

    target: T
    segments: Sequence[str]


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Nothing found; ``allowed`` holds the HTTP methods that would have matched the path."""

    allowed: frozenset[str]


class _Node(Generic[T]):
    """One depth of the trie. ``here`` and ``rest`` map verb → HTTP method → target."""

    __slots__ = ("here", "literals", "one", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.here: dict[str, dict[str, T]] = {}
        self.rest: dict[str, dict[str, T]] = {}


class Router(Generic[T]):
    """Maps (HTTP method, path) to a target."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._verbs: set[str] = set()

    def add(self, http_method: str, template: Template, target: T) -> None:
        """Add a binding; ``http_method`` is upper case, or ``*`` for any. Raises `RouteConflict`."""
        node = self._root
        for segment in template.segments:
            if segment is Wildcard.REST:
                break
            if segment is Wildcard.ONE:
                node.one = node.one or _Node()
                node = node.one
            else:
                assert isinstance(segment, str)
                node = node.literals.setdefault(segment, _Node())
        methods = (node.rest if template.open_ended else node.here).setdefault(template.verb, {})
        if http_method in methods:
            raise RouteConflict(f"{http_method} {template.text} is taken by {methods[http_method]}")
        methods[http_method] = target
        if template.verb:
            self._verbs.add(template.verb)

    def match(self, http_method: str, raw_path: str) -> Match[T] | NoMatch:
        """Find the target of a percent-encoded path that starts with ``/``."""
        raw = raw_path[1:].split("/")
        if raw == [""]:
            raw = []
        allowed: set[str] = set()
        if raw:
            head, colon, verb = raw[-1].rpartition(":")
            if colon and (verb := unquote(verb)) in self._verbs:
                stripped = [*raw[:-1], head] if head or len(raw) > 1 else []
                target = self._search(self._root, _decoded(stripped), 0, verb, http_method, allowed)
                if target is not None:
                    return Match(target, stripped)
                if allowed:
                    return NoMatch(frozenset(allowed))
        target = self._search(self._root, _decoded(raw), 0, "", http_method, allowed)
        if target is not None:
            return Match(target, raw)
        return NoMatch(frozenset(allowed))

    def _search(
        self, node: _Node[T], path: Sequence[str], depth: int, verb: str, http_method: str, allowed: set[str]
    ) -> T | None:
        if depth == len(path):
            found = _pick(node.here.get(verb), http_method, allowed)
            return found if found is not None else _pick(node.rest.get(verb), http_method, allowed)
        segment = path[depth]
        child = node.literals.get(segment)
        if child is not None:
            found = self._search(child, path, depth + 1, verb, http_method, allowed)
            if found is not None:
                return found
        if node.one is not None and segment:
            found = self._search(node.one, path, depth + 1, verb, http_method, allowed)
            if found is not None:
                return found
        if verb in node.rest and all(path[depth:]):
            return _pick(node.rest[verb], http_method, allowed)
        return None


def capture(variable: Variable, segments: Sequence[str]) -> str:
    """The decoded text that a variable takes from the raw segments of a match.

    A single-segment variable is percent-decoded wholly; a multi-segment one leaves ``%2F`` and ``%2f`` as
    they are, because a decoded slash could no longer be told from a separator. Raises UnicodeDecodeError for
    what is not UTF-8.
    """
    taken = segments[variable.start : variable.end]
    if not variable.multi:
        return unquote(taken[0], errors="strict")
    return "/".join(_decode_but_slash(segment) for segment in taken)


def _decode_but_slash(segment: str) -> str:
    if "%" not in segment:
        return segment
    # split() with a group keeps the slashes as they were written, at the odd places
    pieces = _ENCODED_SLASH.split(segment)
    return "".join(
        piece if odd else unquote(piece, errors="strict")
        for piece, odd in zip(pieces, cycle((0, 1)), strict=False)
    )


def _decoded(raw: Sequence[str]) -> Sequence[str]:
    return [unquote(segment) if "%" in segment else segment for segment in raw]


def _pick(methods: dict[str, T] | None, http_method: str, allowed: set[str]) -> T | None:
    if methods is None:
        return None
    target = methods.get(http_method)
    if target is None:
        target = methods.get(ANY_METHOD)
    if target is None:
        allowed.update(methods)
    return target
