"""Building packages: what goes in, what is asked of the modeler, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from chassis import errors
from mds.domain.declaration import Declaration
from mds.domain.packages import PackageInfo
from mds.packaging import build_package
from onnx import TensorProto, helper

SAID = Declaration(model="m", version="1")
CLASS = (
    "from mds import TensorSpec, {steps}, serving\n\n"
    "@serving(inputs=[TensorSpec('x', 'FP32', [-1, 2])], outputs=[TensorSpec('y', 'FP32', [-1, 2])])\n"
    "class M:\n    @{steps}\n    def step(self, x):\n        return x\n"
)


def model(path: Path, *, kind: int = TensorProto.FLOAT, batch: str | int = "n") -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 2])],
        [helper.make_tensor_value_info("y", kind, [batch, 2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    onnx.save(made, path)


def build(folder: Path, said: Declaration = SAID) -> PackageInfo:
    return build_package(folder, folder / "out.mdspkg", said)[0]


def paths(info: PackageInfo) -> list[str]:
    return [file.path for file in info.manifest.files]


def test_a_plain_model_file_tells_its_own_signature(tmp_path: Path) -> None:
    model(tmp_path / "best.onnx")
    manifest = build(tmp_path).manifest
    assert str(manifest.signature.inputs[0]) == "x FP32[-1, 2]"
    assert (manifest.framework, manifest.model_file, manifest.entry_class) == ("onnx", "best.onnx", "")


def test_code_goes_in_and_what_is_nobodys_business_stays_out(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CLASS.format(steps="inference"))
    for name in ("lib/part.py", "__pycache__/x.py", ".venv/y.py", ".secret.py", "old.mdspkg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("pass")
    (tmp_path / "penstock.yaml").write_text("entry: mine:M\n")
    info = build(tmp_path)
    assert paths(info) == ["code/lib/part.py", "code/mine.py"]
    assert info.manifest.framework == "python"


def test_steps_around_a_model_file(tmp_path: Path) -> None:
    model(tmp_path / "best.onnx")
    (tmp_path / "mine.py").write_text(CLASS.format(steps="preprocess"))
    (tmp_path / "penstock.yaml").write_text("entry: mine:M\n")
    manifest = build(tmp_path).manifest
    assert (manifest.framework, manifest.entry_class, manifest.model_file) == ("onnx", "mine:M", "best.onnx")


def test_model_files_are_named_as_they_are_told(tmp_path: Path) -> None:
    model(tmp_path / "a.onnx")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "labels.txt").write_text("x")
    said = Declaration(
        model="m", version="1", model_file="final.onnx", model_files={"a.onnx": "final.onnx", "more/*": ""}
    )
    assert paths(build(tmp_path, said)) == ["model/final.onnx", "model/more/labels.txt"]


def test_a_file_from_elsewhere_is_taken_by_its_last_name(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model(tmp_path / "far.onnx")
    said = Declaration(model="m", version="1", model_files={str(tmp_path / "far.onnx"): ""})
    assert paths(build(tmp_path / "source", said)) == ["model/far.onnx"]


def with_model(folder: Path) -> Declaration:
    model(folder / "a.onnx")
    return SAID


def several(folder: Path) -> Declaration:
    model(folder / "b.onnx")
    return with_model(folder)


def no_names(folder: Path) -> Declaration:
    with_model(folder)
    return Declaration()


def a_pickle(folder: Path) -> Declaration:
    (folder / "weights.bin").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with_model(folder)
    return Declaration(model="m", version="1", model_files={"*": ""})


def a_missing_file(folder: Path) -> Declaration:
    return Declaration(model="m", version="1", model_files={"nothing/*.onnx": ""})


def a_missing_module(folder: Path) -> Declaration:
    return Declaration(model="m", version="1", entry="nobody:M")


def a_missing_class(folder: Path) -> Declaration:
    (folder / "mine.py").write_text(CLASS.format(steps="inference"))
    return Declaration(model="m", version="1", entry="mine:Other")


def a_missing_requirement(folder: Path) -> Declaration:
    (folder / "mine.py").write_text("import no_such_framework\n")
    return Declaration(model="m", version="1", entry="mine:M")


def broken_code(folder: Path) -> Declaration:
    (folder / "mine.py").write_text("1 / 0\n")
    return Declaration(model="m", version="1", entry="mine:M")


def an_undecorated_class(folder: Path) -> Declaration:
    (folder / "mine.py").write_text("class M: ...\n")
    return Declaration(model="m", version="1", entry="mine:M")


def no_inference(folder: Path) -> Declaration:
    (folder / "mine.py").write_text(CLASS.format(steps="preprocess"))
    return Declaration(model="m", version="1", entry="mine:M")


def a_link_outside(folder: Path) -> Declaration:
    (folder / "evil.onnx").symlink_to("/etc/hostname")
    return Declaration(model="m", version="1", model_files={"*.onnx": ""})


def batching_of_a_fixed_shape(folder: Path) -> Declaration:
    from mds.domain.execution import Batching

    model(folder / "a.onnx", batch=1)
    return Declaration(model="m", version="1", batching=Batching(8))


def a_broken_model(folder: Path) -> Declaration:
    (folder / "a.onnx").write_bytes(b"nonsense")
    return SAID


def an_unknown_framework(folder: Path) -> Declaration:
    (folder / "a.tflite").write_bytes(b"x")
    return Declaration(model="m", version="1", framework="tflite", model_file="a.tflite")


REFUSED = {
    several: ("MODEL_FILES_AMBIGUOUS", "a.onnx, b.onnx"),
    no_names: ("DECLARATION_INCOMPLETE", "model and version must be said"),
    a_pickle: ("PICKLE_REFUSED", "weights.bin is a pickle"),
    a_missing_file: ("SOURCE_MISSING", "nothing/*.onnx"),
    a_missing_module: ("SERVING_CLASS_INVALID", "no module 'nobody'"),
    a_missing_class: ("SERVING_CLASS_INVALID", "no class 'Other'; it has M"),
    a_missing_requirement: ("REQUIREMENT_MISSING", "no_such_framework"),
    broken_code: ("SERVING_CLASS_INVALID", "ZeroDivisionError"),
    an_undecorated_class: ("SERVING_CLASS_INVALID", "not decorated with @serving"),
    no_inference: ("INFERENCE_MISSING", "no @inference method"),
    a_link_outside: ("SOURCE_OUTSIDE", "leads out of"),
    batching_of_a_fixed_shape: ("DECLARATION_INVALID", "-1 as its first dimension"),
    a_broken_model: ("MODEL_INVALID", "cannot load a.onnx"),
    an_unknown_framework: ("FRAMEWORK_UNKNOWN", "there are onnx, python"),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_what_cannot_work_is_refused_and_nothing_is_written(case, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    reason, text = REFUSED[case]
    said = case(tmp_path)
    with pytest.raises(errors.Error) as caught:
        build(tmp_path, said)
    assert caught.value.reason == reason
    assert text in caught.value.message
    assert not list(tmp_path.glob("*.mdspkg*"))


def test_pickles_go_in_if_they_are_allowed_and_the_manifest_admits_it(tmp_path: Path) -> None:
    from mds.adapters import archive

    said = a_pickle(tmp_path)
    allowed = Declaration(model="m", version="1", model_files=said.model_files, allow_pickles=True)
    assert build(tmp_path, allowed).manifest.has_pickles
    with pytest.raises(errors.FailedPrecondition, match="runs code"):
        archive.extract(tmp_path / "out.mdspkg", tmp_path / "x")
    archive.extract(tmp_path / "out.mdspkg", tmp_path / "x", allow_pickles=True)


def test_a_missing_framework_names_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    model(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(errors.FailedPrecondition, match=r"pip install 'penstock-mds\[onnx\]'"):
        build(tmp_path)


def test_a_required_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    from mds.adapters.runtimes import runtime
    from mds.domain.execution import Accelerator, Execution

    model(tmp_path / "a.onnx")
    with pytest.raises(errors.FailedPrecondition, match="requires a GPU"):
        runtime("onnx").open(tmp_path / "a.onnx", Execution(accelerator=Accelerator.GPU_REQUIRED), instance=0)
