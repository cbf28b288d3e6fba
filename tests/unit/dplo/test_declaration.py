"""Declarations as text: what is read, and that each mistake is told with file, line, column and field."""

import json

import pytest
from chassis import errors
from dplo.api.declaration import read_declaration
from dplo.api.spec import from_spec, to_spec
from dplo.domain.names import DeploymentName
from dplo.domain.rules import check
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

GOOD = """\
# the digits of the post office
name: projects/digits/deployments/classifier
model: projects/digits/models/classifier
versions:
  - package: {package: projects/digits/models/classifier/packages/1}
    replicas: 2
    environment:
      THREADS: "2"
  - version: 2
    package:
      package: projects/digits/models/classifier/packages/2
    resources: {cpu: 0.5, accelerator: {kind: nvidia-gpu, count: 1}}
traffic:
  - {version: "1", percent: 90}
  - {version: 2, percent: 10}
rollout:
  steps:
    - percent: 10
      minDuration: 5m
      manual_promotion: true
  gate: {max_error_rate: 0.01, latency: {percentile: 99, max_latency: 250ms}, window: 1m}
  on_failure: pause
policy:
  timeout: 30s
  retry: {max_attempts: 3, codes: [UNAVAILABLE]}
"""


def declaration(content: str, filename: str = "deploy.yaml") -> deployment_service_pb2.Declaration:
    return deployment_service_pb2.Declaration(filename=filename, content=content)


def complaints(content: str, filename: str = "deploy.yaml") -> list[tuple[str, str]]:
    with pytest.raises(errors.InvalidArgument) as raised:
        read_declaration(declaration(content, filename))
    assert raised.value.reason == "DECLARATION_INVALID"
    return [(v.field, v.description) for v in raised.value.violations]


def test_a_full_declaration_is_read() -> None:
    message = read_declaration(declaration(GOOD)).message
    first, second = message.versions
    assert (first.replicas, dict(first.environment)) == (2, {"THREADS": "2"})
    assert second.version == "2"
    assert second.resources.accelerator.kind == deployment_pb2.ACCELERATOR_KIND_NVIDIA_GPU
    step = message.rollout.steps[0]
    assert (step.percent, step.min_duration.seconds, step.manual_promotion) == (10, 300, True)
    assert message.rollout.gate.latency.max_latency.nanos == 250_000_000
    assert message.rollout.on_failure == deployment_pb2.FAILURE_ACTION_PAUSE
    assert list(message.policy.retry.codes) == [14]
    spec = to_spec(message)
    assert check(DeploymentName("digits", "classifier"), spec, frozenset({"clusters/local"})) == ()


def test_the_same_in_json_and_in_text_format_is_the_same() -> None:
    message = read_declaration(declaration(GOOD)).message
    as_json = json.dumps(json_format.MessageToDict(message), indent="\t")
    as_text = text_format.MessageToString(message)
    assert read_declaration(declaration(as_json, "d.json")).message == message
    assert read_declaration(declaration(as_text, "d.textproto")).message == message


@pytest.mark.parametrize(
    ("before", "after", "field", "where", "text"),
    [
        ("    replicas: 2", "    replcas: 2", "versions[0].replcas", "6:5", "did you mean 'replicas'?"),
        ("    replicas: 2", "    replicas: two", "versions[0].replicas", "6:15", "whole number, is 'two'"),
        ("    replicas: 2", "    replicas: [2]", "versions[0].replicas", "6:15", "single value, is a list"),
        ("    replicas: 2", "    replicas: 0", "versions[0].replicas", "6:5", "greater than or equal to 1"),
        ("    replicas: 2", "    replicas: 99999999999", "versions[0].replicas", "6:15", "does not fit"),
        (
            "    replicas: 2",
            "    replicas: 2\n    replicas: 3",
            "versions[0].replicas",
            "7:5",
            "written twice",
        ),
        (
            '      THREADS: "2"',
            "      THREADS: yes",
            'versions[0].environment["THREADS"]',
            "8:16",
            'quotes: "yes"',
        ),
        ('      THREADS: "2"', '      "A B": x', 'versions[0].environment["A B"]', "8:7", "pattern"),
        ("minDuration: 5m", "minDuration: 5", "rollout.steps[0].min_duration", "19:20", '"30s"'),
        (
            "manual_promotion: true",
            "manual_promotion: 1",
            "rollout.steps[0].manual_promotion",
            "20:25",
            "true or false",
        ),
        ("on_failure: pause", "on_failure: rolback", "rollout.on_failure", "22:15", "did you mean ROLLBACK?"),
        ("percent: 90", "percent: 190", "traffic[0].percent", "14:20", "less than or equal to 100"),
        ("traffic:\n", "traffic: all\ntrafic:\n", "traffic", "13:10", "must be a list, is a single value"),
        ("rollout:\n", "rollout: fast\nrolout:\n", "rollout", "16:10", "must be a mapping (steps, gate"),
        (
            "name: projects/digits/deployments/",
            "name: Digits/",
            "name",
            "2:1",
            "projects/{project}/deployments/",
        ),
        (
            "model: projects/digits/models/classifier\n",
            "",
            "model",
            "deploy.yaml: ",
            "projects/{project}/models/",
        ),
        ("cpu: 0.5", "cpu: half", "versions[1].resources.cpu", "12:22", "must be a number, is 'half'"),
        ("versions:\n", "uid: mine\nversions:\n", "uid", "4:1", "is set by the service; leave it out"),
        ("timeout: 30s", "timeout: 30s\n  tries: 3", "policy.tries", "25:3", "is no field of RoutePolicy"),
    ],
    ids=lambda value: str(value)[:30].strip(),
)
def test_a_mistake_is_told_with_file_line_column_and_field(
    before: str, after: str, field: str, where: str, text: str
) -> None:
    assert before in GOOD
    found = complaints(GOOD.replace(before, after, 1))
    match = [d for f, d in found if f == field]
    assert match, found
    place = where if where.startswith("deploy") else f"deploy.yaml:{where}: {field}: "
    assert match[0].startswith(place)
    assert text in match[0]


def test_all_mistakes_are_told_at_once() -> None:
    content = GOOD.replace("replicas: 2", "replicas: two").replace("percent: 10\n", "percnt: 10\n")
    assert [field for field, _ in complaints(content)] == ["versions[0].replicas", "rollout.steps[0].percnt"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("name: [", "deploy.yaml:1:8: is not YAML"),
        ("a: b: c", "deploy.yaml:1:5: is not YAML: mapping values are not allowed here"),
        ("", "deploy.yaml:1:1: is empty"),
        ("name: a\n---\nname: b", "deploy.yaml:1:1: holds 2 documents"),
        ("- name", "deploy.yaml:1:1: must be a mapping of fields"),
        ("name: \x00", "deploy.yaml: is not YAML"),
    ],
    ids=["unclosed", "colon", "empty", "two", "list", "control character"],
)
def test_what_is_not_yaml_or_not_one_deployment_is_refused(content: str, text: str) -> None:
    assert complaints(content)[0][1].startswith(text)


def test_broken_json_and_text_format_are_told_with_their_place() -> None:
    assert complaints('{"name": "x",\n "model" 1}', "d.json")[0][1].startswith("d.json:2:10: is not JSON")
    assert complaints('name: "x"\nmodle: "y"', "d.txtpb")[0][1].startswith("d.txtpb:2:")


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{c}: &{c} [{', '.join(['*' + chr(ord(c) - 1)] * 9)}]" for c in "bcdefghi"]
    content = "\n".join(lines) + "\nlabels: {x: *i}\nversions: *i\n"
    assert complaints(content)


def test_rules_across_fields_are_located_too() -> None:
    declared = read_declaration(declaration(GOOD.replace("percent: 90", "percent: 80")))
    found = check(
        DeploymentName("digits", "classifier"), to_spec(declared.message), frozenset({"clusters/local"})
    )
    assert [v.description for v in declared.locate(found)] == [
        "deploy.yaml:13:1: traffic: the percents must add up to 100, they add up to 90"
    ]


@pytest.mark.parametrize(
    ("addition", "field"),
    [
        ("mirrors: [{version: '2', percent: 1}]\n", "mirrors"),
        ("image_build: {}\n", "image_build"),
        ("  max_surge: 1\n", "rollout.max_surge"),
        ("", "versions[0].cluster"),
    ],
    ids=["mirrors", "image_build", "max_surge", "cluster"],
)
def test_what_this_version_does_not_execute_is_refused_by_field(addition: str, field: str) -> None:
    content = GOOD
    if addition.startswith("  "):
        content = content.replace("policy:\n", f"{addition}policy:\n")
    elif addition:
        content += addition
    else:
        content = content.replace("    replicas: 2", "    replicas: 2\n    cluster: clusters/k8s")
    message = read_declaration(declaration(content)).message
    found = check(DeploymentName("digits", "classifier"), to_spec(message), frozenset({"clusters/local"}))
    assert [(v.field, v.reason) for v in found] == [(field, "NOT_AVAILABLE")]
    assert "not available in this version" in found[0].description


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail_in_another_way(content: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        read_declaration(declaration(content))


def test_a_spec_survives_the_way_to_the_message_and_back() -> None:
    spec = to_spec(read_declaration(declaration(GOOD)).message)
    assert to_spec(from_spec(DeploymentName("digits", "classifier"), spec)) == spec
