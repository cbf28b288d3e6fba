"""Resource names: `projects/{project}/deployments/{deployment}` and what lies below it."""

from dataclasses import dataclass

from chassis import errors


@dataclass(frozen=True, slots=True)
class DeploymentName:
    """Name of a deployment."""

    project: str
    deployment: str

    def __str__(self) -> str:
        return f"projects/{self.project}/deployments/{self.deployment}"

    def revision(self, number: int) -> str:
        """Name of one of its revisions."""
        return f"{self}/revisions/{number}"

    def replica(self, replica: str) -> str:
        """Name of one of its replicas."""
        return f"{self}/replicas/{replica}"

    @classmethod
    def parse(cls, name: str) -> "DeploymentName":
        """Reads `projects/{project}/deployments/{deployment}`."""
        parts = name.split("/")
        if len(parts) != 4 or parts[0] != "projects" or parts[2] != "deployments" or not all(parts):
            raise _malformed(name, "projects/{project}/deployments/{deployment}")
        return cls(parts[1], parts[3])


@dataclass(frozen=True, slots=True)
class ModelName:
    """Name of a model; its route at the gateway has the same ids."""

    project: str
    model: str

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model}"

    @property
    def route(self) -> str:
        """Name of the model's route."""
        return f"projects/{self.project}/routes/{self.model}"

    @classmethod
    def parse(cls, name: str) -> "ModelName":
        """Reads `projects/{project}/models/{model}`."""
        parts = name.split("/")
        if len(parts) != 4 or parts[0] != "projects" or parts[2] != "models" or not all(parts):
            raise _malformed(name, "projects/{project}/models/{model}")
        return cls(parts[1], parts[3])


def parse_revision(name: str) -> tuple[DeploymentName, int]:
    """Reads `projects/{project}/deployments/{deployment}/revisions/{revision}`."""
    head, _, number = name.rpartition("/revisions/")
    if not head or not number.isdigit():
        raise _malformed(name, "projects/{project}/deployments/{deployment}/revisions/{revision}")
    return DeploymentName.parse(head), int(number)


def parse_replica(name: str) -> tuple[DeploymentName, str]:
    """Reads `projects/{project}/deployments/{deployment}/replicas/{replica}`."""
    head, _, replica = name.rpartition("/replicas/")
    if not head or not replica:
        raise _malformed(name, "projects/{project}/deployments/{deployment}/replicas/{replica}")
    return DeploymentName.parse(head), replica


def _malformed(name: str, pattern: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"'{name}' is not a name of the form {pattern}",
        reason="NAME_MALFORMED",
        metadata={"name": name},
        violations=[errors.FieldViolation("name", f"must be of the form {pattern}")],
    )
