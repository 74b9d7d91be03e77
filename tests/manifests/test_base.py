"""The Kubernetes base: valid for the API, and consistent with itself and with the code."""

import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from typer.testing import CliRunner

from services.caching.keys import namespace
from services.caching.redis import RedisTier
from services.commands import cache
from services.settings import Settings

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy/kubernetes/base"
SERVICES = {"duet-generation", "duet-classification", "duet-anomaly"}
MIB = 2**20
BYTES = {"Mi": MIB, "Gi": 2**30, "mb": MIB}

Object = dict[str, Any]
RedisServer = Any  # of the conftest


def render(directory: Path) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it renders the kustomize base (tried with 1.32)")
    output = subprocess.run(["kubectl", "kustomize", directory], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(output.stdout))


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return render(BASE)


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def pod(deployment: Object) -> Object:
    return deployment["spec"]["template"]["spec"]


def container(deployment: Object) -> Object:
    (only,) = pod(deployment)["containers"]
    return only


def in_bytes(quantity: str) -> int:
    return int(quantity[:-2]) * BYTES[quantity[-2:]]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def pod_labels(deployment: Object) -> dict[str, str]:
    return deployment["spec"]["template"]["metadata"]["labels"]


# preStop's sleep came with 1.30; 1.34 made it stable.
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_every_object_is_valid(objects: list[Object], version: str) -> None:
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)


def test_there_are_three_services_and_their_cache(objects: list[Object]) -> None:
    assert set(of_kind(objects, "Deployment")) == SERVICES | {"duet-redis"}
    assert set(of_kind(objects, "Service")) == SERVICES | {"duet-redis"}
    assert set(of_kind(objects, "PodDisruptionBudget")) == SERVICES


def test_each_selector_selects_the_pods_of_its_own_deployment_only(objects: list[Object]) -> None:
    deployments = of_kind(objects, "Deployment")

    def selected(selector: dict[str, str]) -> set[str]:
        return {name for name, item in deployments.items() if selects(selector, pod_labels(item))}

    for name, item in deployments.items():
        assert selected(item["spec"]["selector"]["matchLabels"]) == {name}
        for constraint in pod(item).get("topologySpreadConstraints", []):
            assert selected(constraint["labelSelector"]["matchLabels"]) == {name}
    for name, item in of_kind(objects, "Service").items():
        assert selected(item["spec"]["selector"]) == {name}
    for name, item in of_kind(objects, "PodDisruptionBudget").items():
        assert selected(item["spec"]["selector"]["matchLabels"]) == {name}


def test_ports_agree(objects: list[Object]) -> None:
    services = of_kind(objects, "Service")
    for name, deployment in of_kind(objects, "Deployment").items():
        (port,) = container(deployment)["ports"]
        (exposed,) = services[name]["spec"]["ports"]
        assert exposed["targetPort"] == port["name"]
        assert exposed["port"] == port["containerPort"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            action = container(deployment)[probe].get("httpGet") or container(deployment)[probe].get("tcpSocket")
            if action:
                assert action["port"] == port["name"]
        if name in SERVICES:
            arguments = container(deployment)["args"]
            assert arguments[arguments.index("--port") + 1] == str(port["containerPort"])
            annotations = deployment["spec"]["template"]["metadata"]["annotations"]
            assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_services_are_probed_on_their_own_health_only(objects: list[Object]) -> None:
    deployments = of_kind(objects, "Deployment")
    for name in SERVICES:
        probes = container(deployments[name])
        assert probes["startupProbe"]["httpGet"]["path"] == "/readyz"
        assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert probes["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_a_pod_may_finish_its_requests_before_it_is_killed(objects: list[Object]) -> None:
    deployments = of_kind(objects, "Deployment")
    deadline = Settings().request_timeout_ms / 1000
    for name in SERVICES:
        spec = container(deployments[name])
        told = Settings.model_fields["drain_seconds"].default
        pause = spec["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = int(spec["args"][spec["args"].index("--timeout-graceful-shutdown") + 1])
        readiness = spec["readinessProbe"]
        assert drain > deadline
        assert pod(deployments[name])["terminationGracePeriodSeconds"] >= pause + told + drain + 5
        assert readiness["timeoutSeconds"] <= readiness["periodSeconds"]
        assert deployments[name]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_pods_meet_the_restricted_pod_security_standard(objects: list[Object]) -> None:
    accounts = of_kind(objects, "ServiceAccount")
    for deployment in of_kind(objects, "Deployment").values():
        spec = pod(deployment)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
        security = container(deployment)["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for volume in spec.get("volumes", []):
            assert in_bytes(volume["emptyDir"]["sizeLimit"]) > 0


def test_the_user_is_the_one_of_the_image(objects: list[Object]) -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text()
    for deployment in of_kind(objects, "Deployment").values():
        assert f"\nUSER {pod(deployment)['securityContext']['runAsUser']}\n" in containerfile


def test_the_only_writable_folder_holds_the_images_bentoml_home(objects: list[Object]) -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text()
    assert "BENTOML_HOME=/tmp/bentoml" in containerfile
    for name in SERVICES:
        deployment = of_kind(objects, "Deployment")[name]
        assert [mount["mountPath"] for mount in container(deployment)["volumeMounts"]] == ["/tmp"]


def test_memory_is_guaranteed_and_enough(objects: list[Object]) -> None:
    deployments = of_kind(objects, "Deployment")
    for deployment in deployments.values():
        resources = container(deployment)["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert resources["requests"]["cpu"]
    for name in SERVICES:
        # Measured: 225 MB for the two processes of a service before its first request.
        limit = in_bytes(container(deployments[name])["resources"]["limits"]["memory"])
        assert limit >= Settings().cache_memory_bytes + 256 * MIB
    redis = container(deployments["duet-redis"])
    maxmemory = redis["args"][redis["args"].index("--maxmemory") + 1]
    assert in_bytes(redis["resources"]["limits"]["memory"]) >= 1.4 * in_bytes(maxmemory)


def test_redis_is_a_cache(objects: list[Object]) -> None:
    arguments = container(of_kind(objects, "Deployment")["duet-redis"])["args"]
    options = dict(pairwise(arguments))
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"


@pytest.fixture
def redis_of_the_base(objects: list[Object], redis_server: RedisServer) -> Iterator[RedisServer]:
    """The container's very arguments, on a Redis of this machine."""
    redis_server.process.kill()
    redis_server.process.wait()
    arguments = container(of_kind(objects, "Deployment")["duet-redis"])["args"]
    with subprocess.Popen([*redis_server.process.args, *arguments], stdout=subprocess.DEVNULL) as process:
        with Redis(port=redis_server.port, retry=Retry(ConstantBackoff(0.1), 300)) as client:
            assert client.ping()
        yield redis_server
        process.terminate()


@pytest.mark.server
async def test_redis_lets_in_what_services_do_and_nothing_else(redis_of_the_base: RedisServer) -> None:
    tier = RedisTier(redis_of_the_base.url, timeout_seconds=5, ttl_seconds=60)
    await tier.start()
    key = f"{namespace('0' * 64)}{0:040x}"
    assert await tier.lease([key], 5) == ({key}, {})
    tier.keep({key: b"an answer"}, leased=[key])
    tier.drop([key])
    await tier.close()
    with Redis(port=redis_of_the_base.port) as client:
        assert client.dbsize() == 0
        for refused in (["FLUSHALL"], ["KEYS", "*"], ["SET", "other", "1"], ["CONFIG", "GET", "*"], ["EVAL", "1", "0"]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*refused)


@pytest.mark.server
def test_redis_lets_in_duet_cache(redis_of_the_base: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", redis_of_the_base.url)
    with Redis(port=redis_of_the_base.port) as client:
        client.set(f"{namespace('0' * 64)}{0:040x}", b"an answer")
    for arguments in (["stats"], ["flush", "--all"]):
        result = CliRunner().invoke(cache.app, arguments)
        assert result.exit_code == 0, result.stderr
    assert "removed 1 keys" in result.stdout


def test_images_are_pinned(objects: list[Object]) -> None:
    images = [container(deployment)["image"] for deployment in of_kind(objects, "Deployment").values()]
    assert len(set(images)) == 4
    for image in images:
        _, _, tag = image.partition(":")
        assert tag
        assert tag != "latest"


def test_services_read_settings_that_exist(objects: list[Object]) -> None:
    (configuration,) = of_kind(objects, "ConfigMap").values()
    known = {f"DUET_{name}".upper() for name in Settings.model_fields}
    assert set(configuration["data"]) <= known
    deployments = of_kind(objects, "Deployment")
    for name in SERVICES:
        spec = container(deployments[name])
        assert [source["configMapRef"]["name"] for source in spec["envFrom"]] == [configuration["metadata"]["name"]]
        assert {variable["name"] for variable in spec.get("env", [])} <= known
        # With service links Kubernetes itself would set DUET_REDIS_PORT and the like.
        assert pod(deployments[name])["enableServiceLinks"] is False


def test_the_redis_url_is_the_redis_service(objects: list[Object]) -> None:
    (configuration,) = of_kind(objects, "ConfigMap").values()
    url = urlsplit(configuration["data"]["DUET_REDIS_URL"])
    service = of_kind(objects, "Service")[url.hostname or ""]
    assert [port["port"] for port in service["spec"]["ports"]] == [url.port]


def test_the_network_is_closed_but_for_what_is_needed(objects: list[Object]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    deployments = of_kind(objects, "Deployment")

    def covered(policy: str) -> set[str]:
        selector = policies[policy]["spec"]["podSelector"]["matchLabels"]
        return {name for name, item in deployments.items() if selects(selector, pod_labels(item))}

    deny = policies["duet-default-deny"]["spec"]
    assert covered("duet-default-deny") == set(deployments)
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny

    services = policies["duet-services"]["spec"]
    assert covered("duet-services") == SERVICES
    assert [port["port"] for rule in services["ingress"] for port in rule["ports"]] == [3000]
    to_redis, to_dns = services["egress"]
    assert selects(to_redis["to"][0]["podSelector"]["matchLabels"], pod_labels(deployments["duet-redis"]))
    assert [port["port"] for port in to_redis["ports"]] == [6379]
    assert {(port["protocol"], port["port"]) for port in to_dns["ports"]} == {("UDP", 53), ("TCP", 53)}

    redis = policies["duet-redis"]["spec"]
    assert covered("duet-redis") == {"duet-redis"}
    (source,) = redis["ingress"][0]["from"]
    for name in SERVICES:
        assert selects(source["podSelector"]["matchLabels"], pod_labels(deployments[name]))
    assert [port["port"] for port in redis["ingress"][0]["ports"]] == [6379]


def test_every_pod_label_selector_names_the_project(objects: list[Object]) -> None:
    """So that Duet may share a namespace with other workloads."""
    for policy in of_kind(objects, "NetworkPolicy").values():
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/part-of"] == "duet"
