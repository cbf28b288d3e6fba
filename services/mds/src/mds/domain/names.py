"""Resource names of packages and models, and what their parts may be."""

import re
from dataclasses import dataclass

from chassis import errors

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
ID_RULE = "1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'"
VERSION_RULE = "1 to 63 of letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"


def is_id(text: str) -> bool:
    """Whether the text can be the id of a project or model."""
    return _ID.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether the text can be a version."""
    return _VERSION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class PackageName:
    """`projects/{project}/models/{model}/packages/{version}`."""

    project: str
    model: str
    version: str

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model}/packages/{self.version}"

    @classmethod
    def parse(cls, text: str) -> "PackageName":
        """Reads a resource name. Raises InvalidArgument that says which part is wrong."""
        parts = text.split("/")
        if len(parts) != 6 or parts[0::2] != ["projects", "models", "packages"]:
            raise _bad(text, "it must be projects/PROJECT/models/MODEL/packages/VERSION")
        _, project, _, model, _, version = parts
        for kind, value in (("project", project), ("model", model)):
            if not is_id(value):
                raise _bad(text, f"{kind} {value!r} must be {ID_RULE}")
        if not is_version(version):
            raise _bad(text, f"version {version!r} must be {VERSION_RULE}")
        return cls(project, model, version)


def parse_model_parent(text: str) -> tuple[str | None, str | None]:
    """Project and model of `projects/{project}/models/{model}`, None for `-`. Raises InvalidArgument."""
    parts = text.split("/")
    if len(parts) != 4 or parts[0::2] != ["projects", "models"]:
        raise _bad(text, "it must be projects/PROJECT/models/MODEL, with - for all")
    return _part(text, "project", parts[1]), _part(text, "model", parts[3])


def parse_project_parent(text: str) -> str | None:
    """Project of `projects/{project}`, None for `-`. Raises InvalidArgument."""
    parts = text.split("/")
    if len(parts) != 2 or parts[0] != "projects":
        raise _bad(text, "it must be projects/PROJECT, with - for all")
    return _part(text, "project", parts[1])


def _part(text: str, kind: str, value: str) -> str | None:
    if value == "-":
        return None
    if not is_id(value):
        raise _bad(text, f"{kind} {value!r} must be {ID_RULE}")
    return value


def _bad(text: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"{text!r} is not a resource name: {why}",
        reason="NAME_INVALID",
        metadata={"name": text[:256]},
        violations=[errors.FieldViolation("name", why)],
    )
