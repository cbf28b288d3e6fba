"""Path templates of ``google.api.http``: the grammar alone, parsed once at start-up.

Grammar (from ``google/api/http.proto``)::

    Template  = "/" Segments [ Verb ] ;
    Segments  = Segment { "/" Segment } ;
    Segment   = "*" | "**" | LITERAL | Variable ;
    Variable  = "{" FieldPath [ "=" Segments ] "}" ;
    FieldPath = IDENT { "." IDENT } ;
    Verb      = ":" LITERAL ;

``**`` stands last but for the verb, a variable holds no other variable, and the bare ``/`` is allowed as the
template of a root. Matching lives in `chassis.rest.router` and knows nothing of this syntax.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from urllib.parse import unquote

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()+,;=@]|%[0-9A-Fa-f]{2})+")
# Inside a variable "=" separates the field path from its segments only once, so a literal may still hold one.


class Wildcard(enum.Enum):
    """The two segments that match more than themselves."""

    ONE = "*"
    REST = "**"


Segment = str | Wildcard


class TemplateError(ValueError):
    """A template that does not follow the grammar; the text names the template, the column and what was
    expected.
    """


@dataclass(frozen=True, slots=True)
class Variable:
    """What a ``{field=segments}`` binds.

    ``start`` and ``end`` are indices into the path's segments; ``end`` is None when the variable ends in
    ``**`` and so takes everything from ``start`` on. ``multi`` tells the percent-decoding rule: a variable
    whose template is one ``*`` is decoded wholly, every other keeps ``%2F``.
    """

    field_path: tuple[str, ...]
    start: int
    end: int | None
    multi: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template; literals are percent-decoded."""

    text: str
    segments: tuple[Segment, ...]
    verb: str
    variables: tuple[Variable, ...]

    @property
    def open_ended(self) -> bool:
        """Whether the last segment is ``**``."""
        return bool(self.segments) and self.segments[-1] is Wildcard.REST


def parse(text: str) -> Template:
    """Parse a template; raises `TemplateError`."""
    return _Parser(text).template()


class _Parser:
    """Recursive descent over one template; the position is a 0-based column."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.segments: list[Segment] = []
        self.variables: list[Variable] = []

    def template(self) -> Template:
        self._expect("/")
        if not self._at_end() and self._peek() != ":":
            self._segments(inside_variable=False)
        verb = ""
        if self._accept(":"):
            verb = unquote(self._literal("a verb"))
        if not self._at_end():
            raise self._error(f"unexpected {self._peek()!r}")
        if Wildcard.REST in self.segments[:-1]:
            raise TemplateError(f"template {self.text!r}: '**' must be the last segment")
        names = [variable.field_path for variable in self.variables]
        for name in names:
            if names.count(name) > 1:
                raise TemplateError(f"template {self.text!r}: variable {'.'.join(name)!r} is bound twice")
        return Template(self.text, tuple(self.segments), verb, tuple(self.variables))

    def _segments(self, *, inside_variable: bool) -> None:
        self._segment(inside_variable=inside_variable)
        while self._accept("/"):
            self._segment(inside_variable=inside_variable)

    def _segment(self, *, inside_variable: bool) -> None:
        if self._accept("**"):
            self.segments.append(Wildcard.REST)
        elif self._accept("*"):
            self.segments.append(Wildcard.ONE)
        elif self._peek() == "{":
            if inside_variable:
                raise self._error("a variable must not hold another variable")
            self._variable()
        else:
            self.segments.append(unquote(self._literal("a segment: a literal, '*', '**' or '{variable}'")))

    def _variable(self) -> None:
        self._expect("{")
        path = [self._identifier()]
        while self._accept("."):
            path.append(self._identifier())
        start = len(self.segments)
        if self._accept("="):
            self._segments(inside_variable=True)
        else:
            self.segments.append(Wildcard.ONE)
        self._expect("}")
        own = self.segments[start:]
        end = None if Wildcard.REST in own else len(self.segments)
        self.variables.append(Variable(tuple(path), start, end, multi=own != [Wildcard.ONE]))

    def _identifier(self) -> str:
        return self._token(_IDENTIFIER, "a field name")

    def _literal(self, expected: str) -> str:
        return self._token(_LITERAL, expected)

    def _token(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self._error(f"expected {expected}")
        self.position = found.end()
        return found.group()

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _at_end(self) -> bool:
        return self.position >= len(self.text)

    def _accept(self, token: str) -> bool:
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error(f"expected {token!r}")

    def _error(self, problem: str) -> TemplateError:
        where = "at the end" if self._at_end() else f"at column {self.position + 1}"
        return TemplateError(f"template {self.text!r}: {problem} {where}")
