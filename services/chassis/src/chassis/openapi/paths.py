"""Path templates as OpenAPI paths.

OpenAPI has no variable of several segments, so ``/v1/{name=shelves/*/books/*}`` becomes
``/v1/shelves/{shelf}/books/{book}``: each wildcard is a parameter named after the collection in front of it.
Two templates of one shape must be one OpenAPI path, so the first names given to a shape stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.rest.bindings import Binding, PathVariable
from chassis.rest.template import Segment, Wildcard


@dataclass(frozen=True, slots=True)
class PathParameter:
    """One parameter of an OpenAPI path; ``rest`` says that it may hold slashes."""

    name: str
    variable: PathVariable | None
    rest: bool


@dataclass(slots=True)
class PathNames:
    """Gives paths of one shape the same parameter names."""

    _names: dict[tuple[Segment, ...], tuple[str, ...]] = field(default_factory=dict)

    def path(self, binding: Binding) -> tuple[str, list[PathParameter]]:
        """The OpenAPI path of a binding and its parameters."""
        segments = binding.template.segments
        shape = (*segments, binding.template.verb)
        names = self._names.setdefault(shape, tuple(_wildcard_names(binding)))
        parts: list[str] = []
        parameters: list[PathParameter] = []
        remaining = iter(names)
        for index, segment in enumerate(segments):
            if isinstance(segment, Wildcard):
                name = next(remaining)
                parts.append("{" + name + "}")
                parameters.append(PathParameter(name, _owner(binding, index), segment is Wildcard.REST))
            else:
                parts.append(segment)
        verb = f":{binding.template.verb}" if binding.template.verb else ""
        return "/" + "/".join(parts) + verb, parameters


def _owner(binding: Binding, index: int) -> PathVariable | None:
    for candidate in binding.variables:
        end = candidate.variable.end
        if candidate.variable.start <= index and (end is None or index < end):
            return candidate
    return None


def _wildcard_names(binding: Binding) -> list[str]:
    segments = binding.template.segments
    names: list[str] = []
    for index, segment in enumerate(segments):
        if not isinstance(segment, Wildcard):
            continue
        owner = _owner(binding, index)
        before = segments[index - 1] if index else ""
        if owner is not None and not owner.variable.multi:
            name = owner.name
        elif isinstance(before, str) and before and segment is Wildcard.ONE:
            name = singular(before)
        else:
            name = owner.name if owner is not None else "path"
        while name in names:
            name += "_"
        names.append(name)
    return names


def singular(collection: str) -> str:
    """The singular of a collection id, by the few rules that resource names need."""
    for plural, one in (("ies", "y"), ("lves", "lf"), ("sses", "ss"), ("xes", "x"), ("ches", "ch")):
        if collection.endswith(plural) and len(collection) > len(plural) + 1:
            return collection.removesuffix(plural) + one
    return (
        collection.removesuffix("s") if len(collection) > 2 and not collection.endswith("ss") else collection
    )
