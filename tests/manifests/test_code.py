"""What manifests and checks say of the code is true of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.manifests import redis, routes, scaling
from deploy.manifests.objects import of_kind, pod
from deploy.manifests.settings import DEFAULTS, read, refused
from services.protocol.services import routes_of
from services.settings import Settings
from tests.manifests.sites import ROOT, objects

CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text()


def test_pods_run_as_the_user_of_the_image() -> None:
    for item in of_kind(objects("overlays/production"), "Deployment").values():
        assert f"\nUSER {pod(item)['securityContext']['runAsUser']}\n" in CONTAINERFILE


def test_the_only_writable_folder_holds_the_images_bentoml_home() -> None:
    assert "BENTOML_HOME=/tmp/" in CONTAINERFILE
    for item in of_kind(objects("base"), "Deployment").values():
        (container,) = pod(item)["containers"]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def test_the_paths_of_each_task_are_those_of_its_routes() -> None:
    assert {task: set(paths) for task, paths in routes.NATIVE.items()} == {
        task: set(routes_of([task])) for task in routes.NATIVE
    }


def test_settings_are_read_as_the_services_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_DRAIN_SECONDS", "7")  # of this machine, not of a pod
    given = {"DUET_BODIES_BYTES": "1000", "DUET_READINESS": "some", "DUET_REDIS_TIMEOUT": "1", "OTHER": "x"}
    assert read(given).bodies_bytes == 1000
    assert read(given).drain_seconds == Settings.model_fields["drain_seconds"].default
    assert set(refused(given)) == {"DUET_READINESS", "DUET_REDIS_TIMEOUT"}
    assert set(DEFAULTS) == set(Settings.model_fields)


def test_series_of_counters_gauges_and_histograms_are_known() -> None:
    known = scaling.series()
    assert known["duet_queue_items"] == {"model", "version", "operation"}
    assert known["duet_rejections_total"] >= {"route", "reason"}
    assert known["duet_stage_duration_seconds_bucket"] == {"route", "stage", "le"}
    assert "duet_stage_duration_seconds" not in known
    assert "queue-full" in scaling.reasons()


LABELS = 'namespace="duet", model="m", version="v", operation="classify"'
SERIES = {  # of two pods that the query counts, and of a canary, which it does not
    f'duet_queue_items{{pod="duet-classification-5b8c9d7f6-aaaaa", {LABELS}}}': "10x9",
    f'duet_item_seconds{{pod="duet-classification-5b8c9d7f6-aaaaa", {LABELS}}}': "0.02x9",
    f'duet_queue_items{{pod="duet-classification-5b8c9d7f6-bbbbb", {LABELS}}}': "30x9",
    f'duet_item_seconds{{pod="duet-classification-5b8c9d7f6-bbbbb", {LABELS}}}': "0.01x9",
    f'duet_queue_items{{pod="duet-classification-canary-5b8c9d7f6-ccccc", {LABELS}}}': "1000x9",
    f'duet_item_seconds{{pod="duet-classification-canary-5b8c9d7f6-ccccc", {LABELS}}}': "1x9",
    'duet_rejections_total{pod="duet-classification-5b8c9d7f6-aaaaa", namespace="duet", reason="queue-full"}': "0+60x9",
    'duet_rejections_total{pod="duet-classification-5b8c9d7f6-aaaaa", namespace="duet", reason="not-ready"}': "0+600x9",
}


@pytest.mark.parametrize(("series", "expected"), [(SERIES, [0.5, 2.0]), ({}, [None, 0.0])], ids=["load", "no series"])
def test_queries_count_waiting_seconds_and_refusals(
    series: dict[str, str], expected: list[float | None], tmp_path: Path
) -> None:
    """Prometheus computes them: 10 items of 0.02 s and 30 of 0.01 s wait; 60 are refused each half minute."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    scaled = of_kind(objects("base", "keda"), "ScaledObject")["duet-classification"]
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    values = [[{"labels": "{}", "value": value}] if value is not None else [] for value in expected]
    cases = [
        {"expr": query, "eval_time": "4m", "exp_samples": samples}
        for query, samples in zip(queries, values, strict=True)
    ]
    given = [{"series": name, "values": value} for name, value in series.items()]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "30s", "input_series": given, "promql_expr_test": cases}]}))
    run = subprocess.run(["promtool", "test", "rules", file], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_redis_gives_the_services_what_the_reference_says() -> None:
    page = (ROOT / "docs/reference/redis.md").read_text()
    (user,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER duet"))
    also = next(line for line in page.splitlines() if line.startswith("| `duet cache`, in addition"))
    arguments = pod(of_kind(objects("overlays/production"), "Deployment")["duet-redis"])["containers"][0]["args"]
    begin = arguments.index("duet", arguments.index("--user"))
    given = {argument for argument in arguments[begin : arguments.index("exporter")] if argument.startswith("+")}
    described = {word for word in user.split() if word.startswith("+")} | set(
        also.split("`")[3].replace("\\", "").split()
    )
    assert given == described | redis.HARMLESS
