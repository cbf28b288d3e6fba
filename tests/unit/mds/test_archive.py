"""Package archives: the same from the same, whole or refused, and never outside their folder."""

import io
import os
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chassis import errors
from hypothesis import given, settings
from hypothesis import strategies as st
from mds.adapters import archive, tar
from mds.adapters.unpacked import unpack
from mds.domain import manifest_json
from mds.domain.declaration import Declaration
from mds.domain.manifest import Manifest, PackageFile, Role
from mds.domain.paths import check_paths
from mds.domain.signature import Signature, TensorSpec
from mds.packaging import build_package

SIGNATURE = Signature((TensorSpec("x", "FP32", [-1]),), (TensorSpec("y", "FP32", [-1]),))
FILES = {"a.bin": b"weights" * 1000, "deep/er/b.bin": b"", "é.txt": b"x" * 513}


def source(folder: Path, order: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name in order:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
    (folder / "model.py").write_text(
        "from mds import TensorSpec, inference, serving\n\n"
        "@serving(inputs=[TensorSpec('x', 'FP32', [-1])], outputs=[TensorSpec('y', 'FP32', [-1])])\n"
        "class M:\n    @inference\n    def run(self, x):\n        return x\n"
    )
    return folder


def built(folder: Path, out: Path) -> Path:
    said = Declaration(
        model="m", version="1", entry="model:M", model_files={"*.bin": "", "deep/**/*": "", "*.txt": ""}
    )
    out.mkdir(exist_ok=True)
    return build_package(folder, out, said)[1]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return built(source(folder / "source", list(FILES)), folder)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, package: Path) -> None:
    shuffled = random.Random(3).sample(list(FILES), len(FILES))
    umask = os.umask(0o077)
    try:
        other = source(tmp_path / "elsewhere" / "source", shuffled)
        for path in other.rglob("*"):
            os.utime(path, (time.time() - 10**7, 12345))
        again = built(other, tmp_path / "out")
    finally:
        os.umask(umask)
    assert again.read_bytes() == package.read_bytes()


@pytest.mark.parametrize("change", ["content", "name", "version"])
def test_other_inputs_give_another_digest(change: str, tmp_path: Path, package: Path) -> None:
    folder = source(tmp_path / "source", list(FILES))
    said = Declaration(
        model="m", version="1", entry="model:M", model_files={"*.bin": "", "deep/**/*": "", "*.txt": ""}
    )
    if change == "content":
        (folder / "a.bin").write_bytes(b"weightz" * 1000)
    elif change == "name":
        (folder / "a.bin").rename(folder / "c.bin")
    else:
        said = Declaration(model="m", version="2", entry="model:M", model_files=said.model_files)
    info, _ = build_package(folder, tmp_path, said)
    assert info.digest != archive.read_manifest(package).digest


def test_any_tar_program_reads_it(package: Path) -> None:
    with tarfile.open(package) as opened:
        names = opened.getnames()
        assert names[0] == "manifest.json"
        member = opened.extractfile("model/a.bin")
        assert member is not None
        assert member.read() == FILES["a.bin"]
    assert {"model/deep/er/b.bin", "model/é.txt", "code/model.py"} <= set(names)


def test_unpacking_gives_every_file_back(package: Path, tmp_path: Path) -> None:
    info = archive.extract(package, tmp_path / "out")
    for name, content in FILES.items():
        assert (tmp_path / "out" / "model" / name).read_bytes() == content
    assert info == archive.verify(package)
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_from_before_is_used_unless_it_was_changed(package: Path, tmp_path: Path) -> None:
    def unpacked() -> Path:
        return unpack(package, tmp_path, expected_digest="", max_bytes=0, allow_pickles=False)[1]

    first = unpacked()
    stamp = (first / "model" / "a.bin").stat().st_ino
    assert (unpacked() / "model" / "a.bin").stat().st_ino == stamp
    (first / "model" / "a.bin").write_bytes(b"changed")
    assert (unpacked() / "model" / "a.bin").read_bytes() == FILES["a.bin"]


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_never_goes_unnoticed(package: Path, at: int, bit: int) -> None:
    data = bytearray(package.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    before = archive.verify(package)
    try:
        after = archive.verify(io.BytesIO(data))
    except (errors.InvalidArgument, errors.DataLoss, errors.FailedPrecondition):
        return
    # What is read is told by its digest: another manifest has another, and only what is no content (owner,
    # mode and
    # time in headers, which do not reach the disk) changes without it.
    assert (after.digest == before.digest) == (after.manifest == before.manifest)
    assert after.archive_digest != before.archive_digest


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.9999))
def test_a_truncated_archive_is_refused(package: Path, share: float) -> None:
    data = package.read_bytes()
    with pytest.raises((errors.DataLoss, errors.InvalidArgument)):
        archive.verify(io.BytesIO(data[: int(len(data) * share)]))


def manifest_of(paths: list[str], content: bytes = b"data") -> Manifest:
    import hashlib

    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    files = tuple(PackageFile(path, len(content), digest, Role.MODEL) for path in sorted(paths))
    return Manifest("m", "1", SIGNATURE, "python", files, entry_class="a:B")


def forged(members: list[tuple[str, bytes, bytes]], manifest: Manifest | None = None) -> io.BytesIO:
    """An archive with members as given: path, content, type flag. No check stands in its way."""
    out = bytearray()
    head = manifest_json.canonical(manifest or manifest_of(["model/ok"]))
    for path, content, flag in [("manifest.json", head, b"0"), *members]:
        info = tarfile.TarInfo(path)
        info.size = len(content)
        info.type = flag
        if flag in (b"1", b"2"):
            info.linkname = "/etc/passwd"
            info.size, content = 0, b""
        out += info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)
    return io.BytesIO(bytes(out) + bytes(1024))


class Raw(Manifest):
    """A manifest whose own checks are passed by."""

    def _check_files(self) -> None: ...


def raw(path: str) -> Manifest:
    good = manifest_of(["model/ok"]).files[0]
    return Raw(
        "m", "1", SIGNATURE, "python",
        (PackageFile(path, good.size, good.digest, Role.MODEL),), entry_class="a:B",
    )  # fmt: skip


HOSTILE: dict[str, Callable[[], io.BytesIO]] = {
    "parent folder": lambda: forged([("model/../../x", b"data", b"0")], raw("model/../../x")),
    "absolute": lambda: forged([("/tmp/x", b"data", b"0")], raw("/tmp/x")),
    "symbolic link": lambda: forged([("model/ok", b"", b"2")]),
    "hard link": lambda: forged([("model/ok", b"", b"1")]),
    "device": lambda: forged([("model/ok", b"data", b"3")]),
    "pipe": lambda: forged([("model/ok", b"data", b"6")]),
    "folder": lambda: forged([("model", b"", b"5"), ("model/ok", b"data", b"0")]),
    "sparse": lambda: forged([("model/ok", b"data", b"S")]),
    "extended header": lambda: forged(
        [("model/ok", b"30 path=/etc/passwd\n", b"x"), ("model/ok", b"data", b"0")]
    ),
    "unlisted file": lambda: forged([("model/ok", b"data", b"0"), ("model/evil", b"data", b"0")]),
    "duplicate": lambda: forged([("model/ok", b"data", b"0"), ("model/ok", b"evil", b"0")]),
    "missing file": lambda: forged([]),
    "other order": lambda: forged(
        [("model/b", b"data", b"0"), ("model/a", b"data", b"0")], manifest_of(["model/a", "model/b"])
    ),
    "same but for case": lambda: forged(
        [("model/A", b"data", b"0"), ("model/a", b"data", b"0")], manifest_of(["model/A", "model/a"])
    ),
    "file and folder": lambda: forged(
        [("model/a", b"data", b"0"), ("model/a/b", b"data", b"0")], manifest_of(["model/a", "model/a/b"])
    ),
    "other content": lambda: forged([("model/ok", b"evil", b"0")]),
    "trailing data": lambda: io.BytesIO(forged([("model/ok", b"data", b"0")]).getvalue() + b"more"),
    "gzip": lambda: io.BytesIO(b"\x1f\x8b" + bytes(600)),
    "nothing": lambda: io.BytesIO(),
    "endless manifest": lambda: io.BytesIO(tar.header(tar.Entry("manifest.json", 2**40))),
    "no manifest": lambda: io.BytesIO(tar.header(tar.Entry("model/ok", 0)) + tar.END),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(name: str, tmp_path: Path) -> None:
    target = tmp_path / "inner" / "out"
    with pytest.raises((errors.InvalidArgument, errors.DataLoss)) as caught:
        archive.extract(HOSTILE[name](), target)
    assert caught.value.message
    assert [str(p) for p in tmp_path.rglob("*")] == [str(tmp_path / "inner")]


def test_the_forger_itself_makes_good_archives(tmp_path: Path) -> None:
    archive.extract(forged([("model/ok", b"data", b"0")]), tmp_path / "out")
    assert (tmp_path / "out/model/ok").read_bytes() == b"data"


def test_too_large_a_package_is_refused_before_it_is_unpacked(package: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ResourceExhausted, match="are allowed"):
        archive.extract(package, tmp_path / "out", max_bytes=100)


PATHS = [
    "", "/x", "model", "model/", "model//x", "model/./x", "model/../x", "model\\x", "model/c:x", "other/x",
    "model/x\n", "model/nul", "model/LPT1.txt", "model/x.", "model/x ", "model/" + "y" * 600, "model/e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_are_not_plain_are_refused(path: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        check_paths([path])


def test_large_sizes_survive_the_header() -> None:
    for size in (0, 1, 8**11 - 1, 8**11, 2**50):
        (entry,) = [next(tar.entries(io.BytesIO(tar.header(tar.Entry("model/x", size)))))]
        assert entry == tar.Entry("model/x", size)


def test_a_path_too_long_for_the_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        tar.header(tar.Entry("model/" + "x" * 101, 0))
    deep = "model/" + "/".join(["y" * 40] * 5)
    assert next(tar.entries(io.BytesIO(tar.header(tar.Entry(deep, 0))))).path == deep
