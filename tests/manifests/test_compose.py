"""The Compose file has the images, settings, ports and limits of the Kubernetes objects."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from deploy.manifests import sizing
from deploy.manifests.objects import Object, in_bytes, of_kind, pod, serving, variables
from deploy.manifests.settings import read, refused
from deploy.manifests.sizing import memory
from tests.conftest import RedisServer
from tests.manifests.sites import ROOT, objects

COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
TASKS = ("generation", "classification", "anomaly")
OF_ITS_OWN = {"DUET_REDIS_URL", "DUET_THREADS"}  # Kubernetes takes them from a Secret and from the CPU request
MARGIN = 10


def deployment(task: str) -> Object:
    return of_kind(objects("base", "redis"), "Deployment")[f"duet-{task}"]


def in_mib(size: str) -> int:
    return in_bytes({"m": "Mi", "g": "Gi"}[size[-1]].join([size[:-1], ""]))


@pytest.mark.parametrize("task", TASKS)
def test_a_service_is_run_as_its_pod_is(task: str) -> None:
    one, container = COMPOSE[task], serving(deployment(task))
    context = pod(deployment(task))["securityContext"]
    assert one["command"] == container["args"]
    assert one["user"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert one["read_only"] is container["securityContext"]["readOnlyRootFilesystem"]
    assert one["cap_drop"] == container["securityContext"]["capabilities"]["drop"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert in_mib(one["mem_limit"]) == in_bytes(container["resources"]["limits"]["memory"])
    assert one["cpus"] == float(container["resources"]["requests"]["cpu"])
    (mount,) = one["tmpfs"]
    (volume,) = (item for item in pod(deployment(task))["volumes"] if "emptyDir" in item)
    assert mount.startswith(f"/tmp:size={volume['emptyDir']['sizeLimit'].removesuffix('Mi')}m,")
    assert [port.split(":")[0] for port in one["ports"]] == ["127.0.0.1"]
    assert [int(port.split(":")[-1]) for port in one["ports"]] == [container["ports"][0]["containerPort"]]
    assert container["readinessProbe"]["httpGet"]["path"] in " ".join(one["healthcheck"]["test"])


@pytest.mark.parametrize("task", TASKS)
def test_settings_are_those_of_the_pods(task: str) -> None:
    given = COMPOSE[task]["environment"]
    pods = variables(objects("base", "redis"), serving(deployment(task)))
    assert refused(given) == {}
    assert {key: given[key] for key in set(given) - OF_ITS_OWN} == {
        key: value for key, value in pods.items() if key.startswith("DUET_") and key not in OF_ITS_OWN
    }
    assert int(given["DUET_THREADS"]) == COMPOSE[task]["cpus"]


@pytest.mark.parametrize("task", TASKS)
def test_limits_have_room_for_what_the_settings_let_in(task: str) -> None:
    settings = read(COMPOSE[task]["environment"])
    assert in_mib(COMPOSE[task]["mem_limit"]) >= sum(memory(settings).values())
    graceful = float(COMPOSE[task]["command"][-1])
    assert int(COMPOSE[task]["stop_grace_period"].removesuffix("s")) >= settings.drain_seconds + graceful + MARGIN


def test_images_are_given_with_their_digests() -> None:
    names = {one["image"] for one in COMPOSE.values()}
    assert len(names) == 4
    for name in names:
        assert re.fullmatch(r"\$\{[A-Z_]+:\?the image with its digest\}", name)


def arguments() -> list[str]:
    return [str(argument).replace("${REDIS_PASSWORD}", "a1b2c3") for argument in COMPOSE["redis"]["command"]]


def test_redis_is_the_one_of_the_component_without_tls() -> None:
    container = pod(of_kind(objects("base", "redis"), "Deployment")["duet-redis"])["containers"][0]
    theirs = [argument.replace("$(REDIS_PASSWORD)", "a1b2c3") for argument in container["args"]]
    mine = arguments()
    assert user(mine, "duet") == user(theirs, "duet")
    assert user(mine, "default") == user(theirs, "default")
    for option in ("--maxmemory", "--maxmemory-policy", "--save", "--appendonly"):
        assert dict(pairwise(mine))[option] == dict(pairwise(theirs))[option]
    assert in_mib(COMPOSE["redis"]["mem_limit"]) == in_bytes(container["resources"]["limits"]["memory"])


def user(given: list[str], name: str) -> list[str]:
    """The rules of a user."""
    rules = " ".join(given).split(f"--user {name} ")[1]
    return rules.split(" --user")[0].split()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The container's very arguments, on a Redis of this machine."""
    redis_server.process.kill()
    redis_server.process.wait()
    command = [*redis_server.process.args, *arguments()[1:]]  # type: ignore[misc]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}) as process:
        with Redis(port=redis_server.port, retry=Retry(ConstantBackoff(0.1), 300)) as client:
            assert client.ping()
        yield redis_server
        process.terminate()


@pytest.mark.server
def test_redis_starts_and_wants_the_password(redis: RedisServer) -> None:
    with Redis(port=redis.port) as stranger, pytest.raises(NoPermissionError):
        stranger.get("duet:x")
    with Redis(port=redis.port, username="duet", password="a1b2c3") as client:
        assert client.set("duet:x", "1")


def test_the_arithmetic_counts_every_part() -> None:
    """Each setting that lets memory grow is in the sum."""
    few: dict[str, Any] = {"DUET_BODY_BYTES": "1024", "DUET_IMAGE_PIXELS": "1024"}
    least = sum(sizing.memory(read(few)).values())
    for name in ("bodies_bytes", "cache_memory_bytes", "unread_bytes", "batch_bytes", "connections"):
        more = few | {f"DUET_{name.upper()}": str(2**31)}
        assert sum(sizing.memory(read(more)).values()) > least
    for name in ("body_bytes", "image_pixels"):
        assert sum(sizing.memory(read({f"DUET_{name.upper()}": str(2**31)})).values()) > least


def test_the_arithmetic_covers_what_was_measured() -> None:
    measured = json.loads((ROOT / "docs/results/install_size.json").read_text())["memory_mib"]
    most = {part: size / sizing.MEBI for part, size in memory(read({})).items()}
    loads = measured["loads"]
    for task in TASKS:
        assert measured["idle"][task] <= most["idle"]
    assert loads["uploads"] <= most["bodies"]
    assert loads["worst bodies"] <= most["bodies"] + most["trees and pixels"]
    assert loads["pictures"] <= round(most["trees and pixels"]) + 1
    assert loads["dear requests"] <= most["compute"]
    assert loads["cache"] <= most["cache"]
    assert loads["answers"] <= most["answers"]
    assert loads["connections"] * read({}).connections / 2000 <= most["connections"]
    assert measured["idle"]["allinone"] + loads["everything"] <= sum(most.values())
    assert f"{sum(most.values()):,.0f} MiB" in (ROOT / "docs/results/install_size.md").read_text()
