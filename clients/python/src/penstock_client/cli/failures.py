"""How a failure is told: what went wrong, where, what would be right; and which exit code says so to a
program.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.text import Text

from penstock_client.errors import Code, PenstockError, RolloutFailed

INTERRUPTED = 130

EXIT_CODES = {
    0: "done",
    1: "a server failed, or something unexpected happened",
    2: "wrong usage or wrong input; nothing was done",
    3: "what was named does not exist",
    4: "not allowed, or not known who is calling",
    5: "in conflict with what is there: exists already, was changed meanwhile, or is not in a state for it",
    6: "not reachable, or not in time; trying again later may help",
    7: "a rollout did not get where it was told to go",
    130: "interrupted",
}

_BY_CODE = {
    Code.INVALID_ARGUMENT: 2,
    Code.OUT_OF_RANGE: 2,
    Code.NOT_FOUND: 3,
    Code.PERMISSION_DENIED: 4,
    Code.UNAUTHENTICATED: 4,
    Code.ALREADY_EXISTS: 5,
    Code.FAILED_PRECONDITION: 5,
    Code.ABORTED: 5,
    Code.UNAVAILABLE: 6,
    Code.DEADLINE_EXCEEDED: 6,
    Code.RESOURCE_EXHAUSTED: 6,
    Code.CANCELLED: INTERRUPTED,
}


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, RolloutFailed):
        return 7
    return _BY_CODE.get(error.code, 1) if isinstance(error, PenstockError) else 1


def show(error: BaseException) -> int:
    """Tells the error on standard error, as JSON if JSON was asked for, and answers the exit code."""
    if _json_wanted(sys.argv):
        sys.stderr.write(json.dumps({"error": _document(error)}) + "\n")
        return exit_code(error)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if not isinstance(error, PenstockError):
        console.print(
            Text("error: ", style="bold red") + Text(f"unexpected: {type(error).__name__}: {error}")
        )
        console.print("Run it again with PENSTOCK_DEBUG=1 for the details.", style="dim")
        return 1
    console.print(Text("error: ", style="bold red") + Text(error.message))
    for violation in error.violations:
        if violation.description in error.message:
            continue
        where = f"{violation.field}: " if violation.field else ""
        console.print(Text(f"  {where}", style="yellow") + Text(violation.description))
    tail = error.reason if not error.origin else f"{error.reason}, from {error.origin}"
    console.print(Text(f"  ({tail})", style="dim"))
    if hint := _hint(error):
        console.print(Text(hint))
    return exit_code(error)


def _hint(error: PenstockError) -> str:
    if error.reason == "SERVER_UNREACHABLE":
        return "Is it running? Start everything on this machine with: penstock up"
    if error.code is Code.UNAUTHENTICATED:
        return "Set PENSTOCK_TOKEN or PENSTOCK_TOKEN_FILE, or `token_file` in your profile."
    return ""


def _document(error: BaseException) -> dict[str, object]:
    if not isinstance(error, PenstockError):
        return {"code": Code.UNKNOWN.name, "reason": type(error).__name__, "message": str(error)}
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "origin": error.origin,
        "metadata": dict(error.metadata),
        "violations": [{"field": v.field, "description": v.description} for v in error.violations],
    }


def _json_wanted(argv: list[str]) -> bool:
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    return any(
        (a in {"-o", "--output"} and b == "json") or a in {"--output=json", "-ojson"} for a, b in pairs
    )
