"""Every overlay, alone and with components, renders, is valid for the API, and passes the checks of `make render`."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils
import pytest
import yaml

from deploy.manifests.checks import problems
from deploy.manifests.objects import Object, Objects, of_kind
from tests.manifests import sites
from tests.manifests.sites import COMPONENTS, KUBERNETES, TARGETS, fit, objects, pairs

OLDEST = (1, 31)
CRDS = Path(os.environ.get("DUET_DATA_DIR", "nowhere")) / "crds"
SINGLE = [(target, some) for target in TARGETS for some in pairs(target) if len(some) <= 1]
PAIRS = [(target, some) for target in TARGETS for some in pairs(target) if len(some) == 2]


def label(case: tuple[str, tuple[str, ...]]) -> str:
    return "+".join([case[0], *case[1]])


def versions() -> list[str]:
    """Of Kubernetes, from the oldest that the base supports to the newest whose schemas are installed."""
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    names = {entry.name.split("-")[0].removeprefix("v").rpartition(".")[0] for entry in folder.iterdir()}
    numbers = sorted(tuple(map(int, name.split("."))) for name in names)
    return [".".join(map(str, number)) for number in numbers if number >= OLDEST]


def custom(item: Object) -> bool:
    """Whether an object is of a custom resource: its API is no part of Kubernetes."""
    group = item["apiVersion"].rpartition("/")[0]
    return group == "gateway.networking.k8s.io" or ("." in group and not group.endswith(".k8s.io"))


@pytest.fixture(scope="module", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    """Reading them takes most of the time of a validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
        yield


@cache
def validated(text: str, version: str) -> None:
    """Each object once, however many overlays have it."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@cache
def schema(kind: str, version: str) -> Any:
    path = CRDS / f"{kind.lower()}_{version}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


@cache
def validated_custom(text: str) -> None:
    item = json.loads(text)
    schema(item["kind"], item["apiVersion"].rpartition("/")[2]).validate(item)


def validate(items: Objects, some_versions: list[str]) -> None:
    for item in items:
        text = json.dumps(item, sort_keys=True)
        if not custom(item):
            for version in some_versions:
                validated(text, version)
        elif CRDS.is_dir():
            validated_custom(text)


def test_versions_go_from_the_oldest_to_the_newest() -> None:
    assert versions()[0] == "1.31"
    assert len(versions()) >= 7


@pytest.mark.parametrize("case", SINGLE, ids=label)
def test_an_overlay_with_a_component_renders_without_a_problem(case: tuple[str, tuple[str, ...]]) -> None:
    assert problems(objects(case[0], *case[1])) == {}


@pytest.mark.parametrize("target", TARGETS)
def test_objects_are_valid_for_every_version_of_kubernetes(target: str) -> None:
    validate(objects(target), versions())


@pytest.mark.parametrize("target", TARGETS)
def test_components_are_valid_for_the_oldest_and_the_newest_version(target: str) -> None:
    for some in (some for name, some in SINGLE if name == target):
        validate(objects(target, *some), [versions()[0], versions()[-1]])


@pytest.mark.nightly
@pytest.mark.parametrize("case", PAIRS, ids=label)
def test_an_overlay_with_two_components_is_valid_and_without_a_problem(case: tuple[str, tuple[str, ...]]) -> None:
    found = objects(case[0], *case[1])
    assert problems(found) == {}
    validate(found, versions())


def test_custom_resources_fit_their_schemas() -> None:
    if not CRDS.is_dir():
        pytest.skip("DUET_DATA_DIR names no folder with crds, the schemas of custom resources")
    kinds = set()
    for target, some in SINGLE:
        for item in filter(custom, objects(target, *some)):
            validated_custom(json.dumps(item, sort_keys=True))
            kinds.add(item["kind"])
    assert kinds == {"ScaledObject", "HTTPRoute", "Gateway", "Certificate", "Issuer", "PodMonitor"}


@pytest.mark.parametrize(("kind", "field"), [("HTTPRoute", "hostname"), ("ScaledObject", "maxReplicas")])
def test_a_wrong_field_of_a_custom_resource_is_noticed(kind: str, field: str) -> None:
    if not CRDS.is_dir():
        pytest.skip("DUET_DATA_DIR names no folder with crds, the schemas of custom resources")
    (item, *_) = of_kind([*objects("base", "keda"), *objects("base", "gateway")], kind).values()
    with pytest.raises(jsonschema.ValidationError, match=field):
        validated_custom(json.dumps(item | {"spec": item["spec"] | {field: "2"}}))


def test_every_component_can_be_added_to_some_overlay() -> None:
    assert {name for target in TARGETS for name in COMPONENTS if fit(target, name)} == set(COMPONENTS)


def test_the_canary_stands_beside_production() -> None:
    """Its stable half is production, except for the second backend of the routes."""
    production = {key(item): item for item in objects("overlays/production")}
    canary = {key(item): item for item in objects("overlays/canary")}
    routes = {name for name in production if name[0] == "HTTPRoute"}
    assert {name: canary[name] for name in set(production) - routes} == {
        name: production[name] for name in set(production) - routes
    }
    for name in routes:
        (rule,) = canary[name]["spec"]["rules"]
        assert [backend["weight"] for backend in rule["backendRefs"]] == [100, 0]
    assert {kind for kind, _ in set(canary) - set(production)} == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service", "ServiceAccount"
    }  # fmt: skip
    assert all("-canary" in name for _, name in set(canary) - set(production))


def key(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def test_overlays_name_one_namespace_and_a_site_moves_all_of_it() -> None:
    written = sites.site("overlays/production", ()) | {"namespace": "elsewhere"}
    found = sites.rendered(written)
    assert {item["metadata"].get("namespace", item["metadata"]["name"]) for item in found} == {"elsewhere"}


def test_overlays_and_components_have_nothing_that_kustomize_calls_deprecated() -> None:
    old = {"bases", "patchesStrategicMerge", "patchesJson6902", "commonLabels", "vars", "imageTags"}
    for path in KUBERNETES.rglob("kustomization.yaml"):
        assert not old & set(yaml.safe_load(path.read_text()))
