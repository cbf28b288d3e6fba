"""Resource names and their short forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_client import names
from penstock_client.errors import InvalidArgument

IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,20}[a-zA-Z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "project", "full"),
    [
        ("digits/classifier:1.0.0", None, "projects/digits/models/classifier/packages/1.0.0"),
        ("digits/classifier/1.0.0", None, "projects/digits/models/classifier/packages/1.0.0"),
        ("classifier:2", "digits", "projects/digits/models/classifier/packages/2"),
        ("projects/a/models/b/packages/c", None, "projects/a/models/b/packages/c"),
    ],
)
def test_packages_are_named_in_short_and_in_full(text: str, project: str | None, full: str) -> None:
    assert names.package_name(text, project=project) == full


@pytest.mark.parametrize(
    "text", ["", "classifier", "classifier:1", "a/b", "a/b:", "a/b:x/y", "A/b:1", "a/b:-1", "a/b/c/d"]
)
def test_what_names_no_package_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"for example digits/classifier"):
        names.package_name(text)


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "a//b", "projects/a/packages/b", "a/B"])
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        names.parse_model(text)


@pytest.mark.parametrize(
    ("text", "project", "full"),
    [
        ("digits/classifier", None, "projects/digits/routes/classifier"),
        ("classifier", "digits", "projects/digits/routes/classifier"),
        ("projects/digits/routes/classifier", None, "projects/digits/routes/classifier"),
    ],
)
def test_children_of_a_project_are_named_in_short_and_in_full(
    text: str, project: str | None, full: str
) -> None:
    assert names.child_name("routes", text, project=project) == full


def test_a_full_name_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        names.child_name("routes", "projects/digits/deployments/classifier")


@given(IDS, IDS, VERSIONS)
def test_the_short_form_of_a_package_names_the_same_package(project: str, model: str, version: str) -> None:
    full = f"projects/{project}/models/{model}/packages/{version}"

    assert names.package_name(names.short(full)) == full


@given(IDS, IDS)
def test_the_short_form_of_a_deployment_names_the_same_deployment(project: str, deployment: str) -> None:
    full = f"projects/{project}/deployments/{deployment}"

    assert names.child_name("deployments", names.short(full)) == full
