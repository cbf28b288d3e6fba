"""Regenerates protos/gen/python from the contracts: buf generate, then the descriptor set with comments.

`--check` writes nothing and fails if anything differs from what is committed.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "protos" / "gen" / "python"
GENERATED = ("penstock", "inference", "buf")
DESCRIPTORS = Path("penstock", "descriptors.binpb")


def generate(out: Path) -> None:
    template = (ROOT / "buf.gen.yaml").read_text().replace("protos/gen/python", str(out))
    run = subprocess.run(
        ["buf", "generate", "--template", template], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode:
        sys.exit(run.stderr)
    subprocess.run(["buf", "build", "-o", str(out / DESCRIPTORS)], cwd=ROOT, check=True)
    for path in out.rglob("validate_pb2_grpc.pyi"):
        path.unlink()  # a stub of nothing: validate.proto has no service
    for package in GENERATED:
        for folder in sorted(p for p in (out / package).rglob("*") if p.is_dir() and p.name != "__pycache__"):
            if any(folder.glob("*_pb2.py")):
                (folder / "py.typed").touch()


def differences(left: Path, right: Path) -> list[str]:
    def files(root: Path) -> set[str]:
        found = (p for name in GENERATED for p in (root / name).rglob("*"))
        return {str(p.relative_to(root)) for p in found if p.is_file() and "__pycache__" not in p.parts}

    mine, theirs = files(left), files(right)
    changed = [n for n in mine & theirs if not filecmp.cmp(left / n, right / n, shallow=False)]
    return sorted(changed) + sorted(mine ^ theirs)


def install(fresh: Path) -> None:
    """Replaces only what differs, after everything was generated: a failed run leaves the old code whole."""
    for name in differences(HOME, fresh):
        if (fresh / name).exists():
            (HOME / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, HOME / name)
        else:
            (HOME / name).unlink()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="fail if the committed code is out of date")
    check = arguments.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if not check:
            install(fresh)
            return 0
        stale = differences(HOME, fresh)
    for name in stale:
        print(f"protos/gen/python/{name} is out of date: run `make gen` and commit what it writes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
