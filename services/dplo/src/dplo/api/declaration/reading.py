"""From the text of a declaration to a checked message, or to everything that is wrong with it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import protovalidate
import yaml
from chassis import errors
from google.protobuf import text_format
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from dplo.api.declaration.nodes import NodeReader, Wrong
from dplo.api.declaration.places import Place, Places

_YAML = deployment_service_pb2.DECLARATION_FORMAT_YAML
_JSON = deployment_service_pb2.DECLARATION_FORMAT_JSON
_TEXTPROTO = deployment_service_pb2.DECLARATION_FORMAT_TEXTPROTO
_ENDINGS = {
    ".json": _JSON,
    ".textproto": _TEXTPROTO,
    ".txtpb": _TEXTPROTO,
    ".textpb": _TEXTPROTO,
    ".pbtxt": _TEXTPROTO,
}
_NAMES = "lower-case letters, digits and '-', as in projects/digits"
_RIGHT = {
    "name": f"must be projects/{{project}}/deployments/{{deployment}} ({_NAMES}/deployments/classifier)",
    "model": f"must be projects/{{project}}/models/{{model}} ({_NAMES}/models/classifier)",
    "package": "must be projects/{project}/models/{model}/packages/{version}",
    "digest": "must be sha256: and 64 hexadecimal digits; leave it out to take the package as it is now",
    "cluster": "must be clusters/{cluster}; leave it out for the default one",
    "source_commit": "must be a Git commit: 7 to 64 hexadecimal digits",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """A declaration that was read, and where its fields stand."""

    message: deployment_pb2.Deployment
    places: Places

    def locate(self, violations: tuple[errors.FieldViolation, ...]) -> list[errors.FieldViolation]:
        """The same violations with file, line and column."""
        return [self.places.violation(v.field, v.description, v.reason) for v in violations]


def read_declaration(declaration: deployment_service_pb2.Declaration) -> Declared:
    """Reads and checks a declaration. Raises InvalidArgument with every violation."""
    places = Places(declaration.filename or "<declaration>")
    message = deployment_pb2.Deployment()
    violations = _READERS[_format(declaration)](declaration.content, message, places)
    violations = violations or check_shape(message, places)
    if violations:
        raise invalid(violations)
    return Declared(message, places)


def check_shape(message: deployment_pb2.Deployment, places: Places) -> list[errors.FieldViolation]:
    """What the contract's own rules say."""
    found = []
    for violation in protovalidate.collect_violations(message):
        path = _path(violation.proto.field)
        right = (
            _RIGHT.get(path.rpartition(".")[2], "") if violation.proto.rule_id.startswith("string.") else ""
        )
        found.append(places.violation(path, right or violation.proto.message, violation.proto.rule_id))
    return found


def invalid(violations: list[errors.FieldViolation]) -> errors.InvalidArgument:
    """The error with all violations; its text is the first."""
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return errors.InvalidArgument(
        f"the declaration is not valid: {violations[0].description}{more}",
        reason="DECLARATION_INVALID",
        violations=violations,
    )


def _format(declaration: deployment_service_pb2.Declaration) -> int:
    if declaration.format != deployment_service_pb2.DECLARATION_FORMAT_UNSPECIFIED:
        return declaration.format
    name = declaration.filename.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), _YAML)


def _read_yaml(
    content: str, message: deployment_pb2.Deployment, places: Places
) -> list[errors.FieldViolation]:
    try:
        documents = list(yaml.compose_all(content, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        text = f"is not YAML: {error.problem or error.context}"
        return [places.violation("", text, "SYNTAX", place)]
    except yaml.YAMLError as error:
        return [places.violation("", f"is not YAML: {error}", "SYNTAX")]
    documents = [document for document in documents if document is not None]
    if len(documents) != 1:
        text = "is empty" if not documents else f"holds {len(documents)} documents; one deployment per file"
        return [places.violation("", text, "DOCUMENTS", Place(1, 1))]
    reader = NodeReader(places)
    try:
        reader.read(documents[0], message)
    except (Wrong, RecursionError) as error:
        text = error.text if isinstance(error, Wrong) else "is nested too deeply"
        return [places.violation("", text, "TOO_LARGE", Place(1, 1))]
    return reader.violations


def _read_json(
    content: str, message: deployment_pb2.Deployment, places: Places
) -> list[errors.FieldViolation]:
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        place = Place(error.lineno, error.colno)
        return [places.violation("", f"is not JSON: {error.msg}", "SYNTAX", place)]
    except RecursionError:
        return [places.violation("", "is nested too deeply", "TOO_LARGE", Place(1, 1))]
    # JSON is YAML but for tabs between values, which strings cannot hold unescaped.
    return _read_yaml(content.replace("\t", " "), message, places)


def _read_textproto(
    content: str, message: deployment_pb2.Deployment, places: Places
) -> list[errors.FieldViolation]:
    try:
        text_format.Parse(content, message)
    except text_format.ParseError as error:
        place = Place(error.GetLine() or 1, error.GetColumn() or 1)
        text = str(error).partition(" : ")[2] or str(error)
        return [places.violation("", text, "SYNTAX", place)]
    return []


_READERS: dict[int, Callable[[str, deployment_pb2.Deployment, Places], list[errors.FieldViolation]]] = {
    _YAML: _read_yaml,
    _JSON: _read_json,
    _TEXTPROTO: _read_textproto,
}


def _path(field: Any) -> str:
    """A violation's path as `versions[0].environment["A"]`."""
    path = ""
    for element in field.elements if field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            value = subscript.value
            path += f'["{value}"]' if subscript.field == "string_key" else f"[{value}]"
    return path
