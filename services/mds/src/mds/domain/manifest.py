"""What a package says of itself."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mds.domain.execution import Batching, Execution
from mds.domain.names import ID_RULE, VERSION_RULE, is_id, is_version
from mds.domain.signature import Signature

FORMAT_VERSION = 1
MAX_FILES = 100_000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FRAMEWORK = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Role(enum.Enum):
    """What a file of a package is for; the value is its name in the contract."""

    CODE = "ROLE_CODE"
    MODEL = "ROLE_MODEL"
    SAMPLE = "ROLE_SAMPLE"

    @property
    def folder(self) -> str:
        """The folder of the archive that such files lie in."""
        return {Role.CODE: "code/", Role.MODEL: "model/", Role.SAMPLE: "sample/"}[self]


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file: path in the archive, size in bytes, `sha256:…` of its content, and what it is for."""

    path: str
    size: int
    digest: str
    role: Role


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says of itself. Raises ValueError that names the field."""

    model: str
    version: str
    signature: Signature
    framework: str
    files: tuple[PackageFile, ...] = ()
    description: str = ""
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    base_image: str = ""
    entry_class: str = ""
    model_file: str = ""
    batching: Batching = field(default_factory=Batching)
    execution: Execution = field(default_factory=Execution)
    has_pickles: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_id(self.model):
            raise ValueError(f"model {self.model!r} must be {ID_RULE}")
        if not is_version(self.version):
            raise ValueError(f"version {self.version!r} must be {VERSION_RULE}")
        if not _FRAMEWORK.fullmatch(self.framework):
            raise ValueError(f"framework {self.framework!r} must be a word such as onnx or python")
        if self.entry_class and not _ENTRY.fullmatch(self.entry_class):
            raise ValueError(f"entry class {self.entry_class!r} must be module:Class")
        if not self.entry_class and not self.model_file:
            raise ValueError("a package needs a model file or a serving class, and has neither")
        if len(self.files) > MAX_FILES:
            raise ValueError(f"a package may have {MAX_FILES} files, not {len(self.files)}")
        if self.batching.max_items > 1 and not self.signature.batches:
            raise ValueError(
                "batching is on, but not every input and output has -1 as its first dimension: "
                "requests can only be joined along a dynamic first dimension"
            )
        self._check_files()

    def _check_files(self) -> None:
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise ValueError("the files are not sorted by path")
        for file in self.files:
            if not _DIGEST.fullmatch(file.digest) or file.size < 0:
                raise ValueError(f"file {file.path!r} has no valid digest or size")
            if not file.path.startswith(file.role.folder):
                raise ValueError(f"file {file.path!r} does not lie in {file.role.folder}")
        if self.files and self.model_file and f"model/{self.model_file}" not in paths:
            raise ValueError(f"the model file {self.model_file!r} is not among the package's files")
