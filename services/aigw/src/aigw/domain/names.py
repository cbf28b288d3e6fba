"""Names: resource names of the contract and model names of the Open Inference Protocol, taken apart and put
together.
"""

import re

from chassis import errors

ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
VERSION = r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?"

_ROUTE = re.compile(rf"projects/({ID})/routes/({ID})")
_MODEL = re.compile(rf"projects/({ID})/models/({ID})")
_ENDPOINT = re.compile(
    rf"projects/({ID})/models/({ID})/endpoints/([a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?)"
)


def model_key(project: str, model: str) -> str:
    """What callers say: `project/model`."""
    return f"{project}/{model}"


def split_key(key: str) -> tuple[str, str]:
    """Project and model of a `project/model` that is known to be one."""
    project, _, model = key.partition("/")
    return project, model


def route_name(project: str, route: str) -> str:
    """Resource name of a route."""
    return f"projects/{project}/routes/{route}"


def model_resource(project: str, model: str) -> str:
    """Resource name of a model."""
    return f"projects/{project}/models/{model}"


def endpoint_name(project: str, model: str, endpoint: str) -> str:
    """Resource name of an endpoint."""
    return f"projects/{project}/models/{model}/endpoints/{endpoint}"


def split_route_name(name: str, field: str = "name") -> tuple[str, str]:
    """Project and id of a route's resource name."""
    match = _ROUTE.fullmatch(name)
    if match is None:
        raise _malformed(field, name, "projects/{project}/routes/{route}")
    return match[1], match[2]


def split_model_resource(name: str, field: str = "parent") -> tuple[str, str]:
    """Project and model of a model's resource name."""
    match = _MODEL.fullmatch(name)
    if match is None:
        raise _malformed(field, name, "projects/{project}/models/{model}")
    return match[1], match[2]


def split_endpoint_name(name: str, field: str = "name") -> tuple[str, str, str]:
    """Project, model and id of an endpoint's resource name."""
    match = _ENDPOINT.fullmatch(name)
    if match is None:
        raise _malformed(field, name, "projects/{project}/models/{model}/endpoints/{endpoint}")
    return match[1], match[2], match[3]


def _malformed(field: str, name: str, pattern: str) -> errors.InvalidArgument:
    text = f"{name!r} is not of the form {pattern}"
    return errors.InvalidArgument(
        text, reason="NAME_MALFORMED", violations=[errors.FieldViolation(field, text, "NAME_MALFORMED")]
    )
