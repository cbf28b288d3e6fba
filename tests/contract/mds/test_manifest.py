"""The manifest's own JSON form against the contract it follows."""

import json

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from mds.api.convert import manifest_to_proto
from mds.domain import manifest_json
from mds.domain.execution import Accelerator, Batching, Execution
from mds.domain.manifest import Manifest, PackageFile, Role
from mds.domain.signature import OutputTolerance, Signature, TensorSpec
from mds.domain.tensors import DataType
from penstock.mds.v1 import package_pb2

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
floats = st.floats(0, 1e6, allow_nan=False)


@st.composite
def specs(draw: st.DrawFn, *, output: bool) -> list[TensorSpec]:
    found = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    made = []
    for name in found:
        tolerance = None
        if output and draw(st.booleans()):
            tolerance = OutputTolerance(draw(floats), draw(floats), draw(st.integers(0, 100)))
        made.append(
            TensorSpec(
                name,
                draw(st.sampled_from(DataType)),
                draw(st.lists(st.integers(-1, 2**40), max_size=4)),
                optional=not output and draw(st.booleans()),
                tolerance=tolerance,
                description=draw(texts),
                labels=draw(st.lists(texts, max_size=3)),
            )
        )
    return made


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    paths = draw(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True))
    files = tuple(
        PackageFile(f"model/{p}", draw(st.integers(0, 2**50)), "sha256:" + "0" * 64, Role.MODEL)
        for p in sorted(paths)
    )
    return Manifest(
        model="m",
        version="1.0_x",
        signature=Signature(tuple(draw(specs(output=False))), tuple(draw(specs(output=True)))),
        framework="onnx",
        files=files,
        description=draw(texts),
        python_version=draw(texts),
        requirements=tuple(draw(st.lists(texts, max_size=2))),
        entry_class="a.b:C",
        batching=Batching(0, 0.0, draw(st.integers(0, 1000))),
        execution=Execution(
            draw(st.integers(1, 9)),
            draw(st.integers(0, 9)),
            draw(st.sampled_from(Accelerator)),
            draw(st.integers(0, 2**50)),
            draw(st.dictionaries(texts, texts, max_size=2)),
        ),
        has_pickles=draw(st.booleans()),
        labels=draw(st.dictionaries(texts, texts, max_size=3)),
    )


@settings(max_examples=80, deadline=None)
@given(manifests())
def test_the_canonical_form_is_the_contracts_json(manifest: Manifest) -> None:
    canonical = manifest_json.canonical(manifest)
    message = json_format.Parse(canonical, package_pb2.PackageManifest())
    again = json_format.MessageToDict(message)
    assert json.loads(canonical) == again
    assert manifest_json.parse(canonical) == manifest
    assert manifest_to_proto(manifest) == message


def test_durations_are_written_as_protobuf_writes_them() -> None:
    from google.protobuf.duration_pb2 import Duration
    from mds.domain.manifest_json import duration_text

    for nanos in (0, 1, 1000, 5_000_000, 1_000_000_000, 1_500_000_000, 60 * 10**9, 123_456_789):
        message = Duration()
        message.FromNanoseconds(nanos)
        assert duration_text(nanos / 1e9) == message.ToJsonString()
