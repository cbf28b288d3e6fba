"""Where in a text each field stands."""

from dataclasses import dataclass, field

from chassis import errors


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Places:
    """The place of each field path of one file."""

    filename: str
    known: dict[str, Place] = field(default_factory=dict)

    def find(self, path: str) -> Place | None:
        """The place of a field, or of the nearest field around it that is written at all."""
        while True:
            place = self.known.get(path)
            if place is not None or not path:
                return place
            path = _outer(path)

    def violation(
        self, path: str, text: str, reason: str, place: Place | None = None
    ) -> errors.FieldViolation:
        """A violation that says where."""
        there = place or self.find(path)
        where = f"{self.filename}:{there.line}:{there.column}" if there else self.filename
        named = f"{path}: " if path else ""
        return errors.FieldViolation(path, f"{where}: {named}{text}", reason)


def _outer(path: str) -> str:
    """The path of what a field is part of."""
    if path.endswith("]"):
        return path[: path.rindex("[")]
    return path.rpartition(".")[0]
