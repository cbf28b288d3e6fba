"""`python -m deploy.tools.contracts`: Google's api-linter over our contracts, one line a finding.

What it must not ask, and why, stands in `api-linter.yaml` beside this file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from deploy.tools.catalogue import program
from deploy.tools.tool import ToolError

PROTOS = Path(__file__).resolve().parents[2] / "protos"
RULES = Path(__file__).with_name("api-linter.yaml")


def lint(linter: Path, folder: Path, rules: Path) -> list[str]:
    """Return findings as `FILE:LINE: RULE: text`. Raises ToolError when the contracts cannot be read."""
    files = sorted(str(path.relative_to(folder)) for path in (folder / "penstock").rglob("*.proto"))
    options = ["--config", str(rules), "--proto-path", "third_party", "--output-format", "json"]
    command = [str(linter), *options, *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"api-linter cannot read the contracts:\n{done.stderr}")
    return [
        f"protos/{file['file_path']}:{problem['location']['start_position']['line_number']}: "
        f"{problem['rule_id']}: {problem['message']}"
        for file in json.loads(done.stdout)
        for problem in file["problems"]
    ]


def main() -> int:
    try:
        findings = lint(program("api-linter"), PROTOS, RULES)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*findings, f"api-linter: {len(findings)} findings"]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
