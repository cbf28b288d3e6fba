"""Which paths a package may hold, so that it can be unpacked on any system and never outside its folder."""

import unicodedata
from collections.abc import Iterable

from chassis import errors

CODE = "code/"
MODEL = "model/"
SAMPLE = "sample/"
MANIFEST = "manifest.json"
MAX_PATH = 512
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(10)), *(f"LPT{n}" for n in range(10))}


def check_path(path: str) -> None:
    """Raises InvalidArgument with reason PACKAGE_PATH_UNSAFE for a path that is not plain and inside the
    package.
    """
    problem = _problem(path)
    if problem:
        raise errors.InvalidArgument(
            f"the package holds the path {path!r}, which {problem}; it is refused",
            reason="PACKAGE_PATH_UNSAFE",
            metadata={"path": path[:256]},
        )


def check_paths(paths: Iterable[str]) -> None:
    """Checks each path, and that no two would meet on a file system that ignores case. Raises
    InvalidArgument.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        check_path(path)
        key = path.casefold()
        if key in seen or key in folders:
            _refuse_meeting(path, seen.get(key) or folders[key])
        seen[key] = path
        parts = key.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in seen:
                _refuse_meeting(path, seen[folder])
            folders.setdefault(folder, path)


def _problem(path: str) -> str:
    if not path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        return f"is empty or longer than {MAX_PATH} bytes"
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "has control characters"
    if path.startswith("/") or "\\" in path or ":" in path:
        return "is absolute or not a plain path with /"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode normal form C"
    if not path.startswith((CODE, MODEL, SAMPLE)):
        return "does not lie below code/, model/ or sample/"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "has an empty, . or .. part"
        if part.endswith((".", " ")) or part.split(".")[0].upper() in _RESERVED:
            return "has a part that some systems cannot store"
    return ""


def _refuse_meeting(path: str, other: str) -> None:
    raise errors.InvalidArgument(
        f"the package holds {other!r} and {path!r}, which cannot lie side by side on every system; "
        "it is refused",
        reason="PACKAGE_PATH_UNSAFE",
        metadata={"path": path[:256], "other": other[:256]},
    )
