"""Our `inference` contract against the compiled ones inside tritonclient and kserve (kept in data/).

Same messages, fields, numbers, types and methods wherever both have them. What differs is listed here, each
with its reason, so that nothing else can.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from inference import grpc_service_pb2, model_config_pb2

DATA = Path(__file__).with_name("data")
TRITON, KSERVE = "tritonclient-2.73.0", "kserve-0.21.0"
MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE

# Of Triton's configuration only that is here which a Penstock server can answer truly; the numbers are
# reserved.
SUBSETS = {"ModelInstanceGroup", "ModelInput", "ModelOutput", "ModelDynamicBatching", "ModelConfig"}
OURS_MORE = {
    "RepositoryModelLoadResponse": "KServe's fields, which Triton's clients pass over",
    "RepositoryModelUnloadResponse": "KServe's fields, which Triton's clients pass over",
}
KSERVE_OTHER = {
    "RepositoryModelLoadRequest": "its field 1 is Triton's `repository_name`; the server takes either",
    "RepositoryModelUnloadRequest": "the same",
    "RepositoryModelLoadResponse": "it spells `isLoaded` what is `is_loaded` here",
    "RepositoryModelUnloadResponse": "the same",
}
Fields = dict[int, tuple[object, ...]]


def files_of(*modules: object) -> list[descriptor_pb2.FileDescriptorProto]:
    files = []
    for module in modules:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)  # type: ignore[attr-defined]  # generated modules have it
        files.append(file)
    return files


def stored(name: str) -> list[descriptor_pb2.FileDescriptorProto]:
    data = (DATA / f"{name}.binpb").read_bytes()
    return list(descriptor_pb2.FileDescriptorSet.FromString(data).file)


def messages(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, Fields]:
    found: dict[str, Fields] = {}

    def walk(message: descriptor_pb2.DescriptorProto, name: str) -> None:
        found[name] = {
            f.number: (
                f.name,
                f.type,
                f.label,
                f.type_name,
                message.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else "",
            )
            for f in message.field
        }
        for nested in message.nested_type:
            walk(nested, f"{name}.{nested.name}")

    for file in files:
        assert file.package == "inference"
        for message in file.message_type:
            walk(message, message.name)
    return found


def enums(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, dict[str, int]]:
    def walk(
        scope: descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto, prefix: str
    ) -> Iterator[tuple[str, dict[str, int]]]:
        for enum in scope.enum_type:
            yield prefix + enum.name, {value.name: value.number for value in enum.value}
        inner = (
            scope.message_type if isinstance(scope, descriptor_pb2.FileDescriptorProto) else scope.nested_type
        )
        for message in inner:
            yield from walk(message, f"{prefix}{message.name}.")

    return {name: values for file in files for name, values in walk(file, "")}


def methods(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, tuple[str, str, bool, bool]]:
    (service,) = [s for file in files for s in file.service]
    assert service.name == "GRPCInferenceService"
    return {
        m.name: (m.input_type, m.output_type, m.client_streaming, m.server_streaming) for m in service.method
    }


OURS = files_of(grpc_service_pb2, model_config_pb2)
SHARED = sorted(set(messages(OURS)) & set(messages(stored(TRITON))))


@pytest.mark.parametrize("name", SHARED)
def test_a_message_is_tritons(name: str) -> None:
    ours, theirs = messages(OURS)[name], messages(stored(TRITON))[name]
    if name in SUBSETS:
        theirs = {number: field for number, field in theirs.items() if number in ours}
        assert len(theirs) >= 2
    if name in OURS_MORE:
        ours = {number: field for number, field in ours.items() if number in theirs}
    assert ours == theirs


def test_no_message_of_the_service_is_missing() -> None:
    service = [file for file in stored(TRITON) if file.service]
    assert set(messages(service)) <= set(messages(OURS))


def test_we_have_no_message_that_triton_has_not() -> None:
    assert set(messages(OURS)) <= set(messages(stored(TRITON)))


def test_the_methods_are_tritons() -> None:
    assert methods(OURS) == methods(stored(TRITON))


def test_the_enums_are_tritons() -> None:
    theirs = enums(stored(TRITON))
    for name, values in enums(OURS).items():
        assert values == theirs[name], name


@pytest.mark.parametrize("name", sorted(messages(stored(KSERVE))))
def test_a_message_is_kserves(name: str) -> None:
    ours, theirs = messages(OURS)[name], messages(stored(KSERVE))[name]
    if name in KSERVE_OTHER:
        # Numbers and types still agree where both have a field.
        common = set(ours) & set(theirs)
        assert {n: ours[n][1:4] for n in common} == {n: theirs[n][1:4] for n in common}
        return
    # Triton's later additions (two kinds of parameter) are here and not there.
    assert {number: ours.get(number) for number in theirs} == theirs
    assert set(ours) - set(theirs) <= ({4, 5} if name == "InferParameter" else set())


def test_kserves_methods_are_ours() -> None:
    theirs = methods(stored(KSERVE))
    assert {name: methods(OURS)[name] for name in theirs} == theirs
