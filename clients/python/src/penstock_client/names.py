"""Resource names of the contracts, and the short forms that people type."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock_client.errors import InvalidArgument

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")


@dataclass(frozen=True)
class ModelName:
    """A model as callers name it: `project/model`."""

    project: str
    model: str

    def __str__(self) -> str:
        return f"{self.project}/{self.model}"

    @property
    def resource(self) -> str:
        """`projects/{project}/models/{model}`."""
        return f"projects/{self.project}/models/{self.model}"


def parse_model(text: str, *, project: str | None = None) -> ModelName:
    """`project/model`, `projects/{project}/models/{model}`, or `model` when a default project is given."""
    parts = text.split("/")
    if len(parts) == 4 and parts[0] == "projects" and parts[2] == "models":
        parts = [parts[1], parts[3]]
    elif len(parts) == 1 and project:
        parts = [project, parts[0]]
    if len(parts) != 2 or not all(_ID.fullmatch(part) for part in parts):
        raise InvalidArgument(
            f"{text!r} does not name a model; write project/model, for example digits/classifier",
            reason="NAME_INVALID",
        )
    return ModelName(*parts)


def package_name(text: str, *, project: str | None = None) -> str:
    """Full name of a package from `project/model:version`, `project/model/version` or the full name
    itself.
    """
    parts = text.split("/")
    if len(parts) == 6 and parts[0::2] == ["projects", "models", "packages"]:
        parts = [parts[1], parts[3], parts[5]]
    else:
        head, colon, version = text.rpartition(":")
        parts = [*head.split("/"), version] if colon else parts
    if len(parts) == 2 and project:
        parts = [project, *parts]
    if len(parts) != 3 or not all(map(_ID.fullmatch, parts[:2])) or not _VERSION.fullmatch(parts[2]):
        raise InvalidArgument(
            f"{text!r} does not name a package; write project/model:version, "
            "for example digits/classifier:1.0.0",
            reason="NAME_INVALID",
        )
    return f"projects/{parts[0]}/models/{parts[1]}/packages/{parts[2]}"


def child_name(kind: str, text: str, *, project: str | None = None) -> str:
    """Full name `projects/{project}/{kind}/{id}` from `project/id`, from `id` alone when a default project is
    given, or from itself.
    """
    parts = text.split("/")
    if len(parts) == 4 and parts[0] == "projects" and parts[2] == kind:
        parts = [parts[1], parts[3]]
    elif len(parts) == 1 and project:
        parts = [project, parts[0]]
    if len(parts) != 2 or not all(_ID.fullmatch(part) for part in parts):
        raise InvalidArgument(
            f"{text!r} does not name one of {kind}; write project/{kind.rstrip('s')}, "
            "for example digits/classifier",
            reason="NAME_INVALID",
        )
    return f"projects/{parts[0]}/{kind}/{parts[1]}"


def short(name: str) -> str:
    """The short form of a full name, for people: what `package_name` and `child_name` take."""
    parts = name.split("/")
    if len(parts) == 6 and parts[4] == "packages":
        return f"{parts[1]}/{parts[3]}:{parts[5]}"
    if len(parts) >= 4 and parts[0] == "projects":
        return f"{parts[1]}/{parts[-1]}"
    return parts[-1]
