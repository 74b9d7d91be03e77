"""The KServe runtime and its example: valid by KServe's schemas, and a real server answers as KServe asks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import validators

from services.delivery import reference
from services.inference import folder
from services.inference.bundle import SCHEMA_VERSION
from services.settings import Settings

ROOT = Path(__file__).parents[2]
RUNTIME, EXAMPLE = (ROOT / "deploy/kserve" / f"{name}.yaml" for name in ("clusterservingruntime", "inferenceservice"))
SCHEMAS = Path(os.environ.get("DUET_DATA_DIR", "")) / "crds"

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("manifest", "schema"),
    [(RUNTIME, "clusterservingruntime_v1alpha1.json"), (EXAMPLE, "inferenceservice_v1beta1.json")],
    ids=["runtime", "example"],
)
def test_it_is_valid_by_kserves_schema(manifest: Path, schema: str) -> None:
    if not (SCHEMAS / schema).exists():
        pytest.skip("DUET_DATA_DIR does not say where crds/ with the schemas of custom resources is")
    rules = json.loads((SCHEMAS / schema).read_text())
    validator = validators.validator_for(rules)(rules)
    content = yaml.safe_load(manifest.read_text())
    assert [error.message for error in validator.iter_errors(content)] == []
    content["spec"]["unknown"] = 1
    assert [error.message for error in validator.iter_errors(content)] != [], "the schema is strict"


@pytest.fixture
def runtime() -> Object:
    loaded: Object = yaml.safe_load(RUNTIME.read_text())
    return loaded


@pytest.fixture
def container(runtime: Object) -> Object:
    [only] = runtime["spec"]["containers"]
    return dict(only)


def environment(container: Object, name: str) -> dict[str, str]:
    """Its variables, as KServe fills them in for an InferenceService of that name."""
    return {one["name"]: one["value"].replace("{{.Name}}", name) for one in container["env"] if "value" in one}


def test_the_example_chooses_the_runtime_and_names_a_digest(runtime: Object) -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    model = example["spec"]["predictor"]["model"]
    [kind] = runtime["spec"]["supportedModelFormats"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] == {name: kind[name] for name in ("name", "version")}
    assert kind["version"] == str(SCHEMA_VERSION)
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert reference.parse(model["storageUri"].replace("oci+native://", "oci://")).digest
    grace = example["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace >= Settings.model_fields["drain_seconds"].default + 20 + 10


def test_variables_are_settings_and_the_port_is_one(container: Object, runtime: Object) -> None:
    names = {one["name"] for one in container["env"]}
    assert {name for name in names if name.startswith("DUET_")} <= {
        f"DUET_{name.upper()}" for name in Settings.model_fields
    }
    [port] = {one["containerPort"] for one in container["ports"]}
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {probe["httpGet"]["port"] for probe in probes} == {port}
    assert container["args"][container["args"].index("--port") + 1] == str(port)
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(port)


def test_the_pod_is_restricted_and_may_write_to_tmp_alone(container: Object) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert environment(container, "")["BENTOML_HOME"].startswith("/tmp/")
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


@pytest.mark.slow
@pytest.mark.server
def test_a_server_answers_kserves_probes_and_paths_under_the_name_of_the_inferenceservice(
    container: Object, serve: Any, model_store: Path, tmp_path: Path
) -> None:
    """With the runtime's own variables; KServe's modelcar leaves a link at /mnt/models."""
    [path] = [found.parent for found in model_store.glob("models/digits-cnn/*/manifest.json")]
    link = tmp_path / "models"
    link.symlink_to(path)
    variables = environment(container, "digits")
    assert variables.pop("DUET_BUNDLES") == "/mnt/models"
    home = Path(variables.pop("BENTOML_HOME").replace("/tmp", str(tmp_path)))
    variables |= {"DUET_BUNDLES": str(link), "DUET_DEFAULT_MODELS": ""}
    with serve(container["args"][0], home=home, **variables) as server, httpx.Client(base_url=server.url) as client:
        for probe in ("readinessProbe", "livenessProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
        about = client.get("/v2/models/digits").json()
        [entry] = folder.entries(link)
        assert about["versions"] == [entry.version]
        assert client.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
        image = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": [0] * 784}
        answer = client.post("/v2/models/digits/infer", json={"inputs": [image]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_name"] == "digits"
        assert client.get(f"/v2/models/{entry.name}").status_code == 404
