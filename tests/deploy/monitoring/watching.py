"""A real Prometheus, Alertmanager and exporter of Redis on free ports."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import free_port
from tests.deploy.monitoring.promtool import program
from tests.programs import answering

ROOT = Path(__file__).parents[3]
Targets = Mapping[str, list[str]]  # host and port, by job


@contextlib.contextmanager
def redis_exporter(redis_url: str, folder: Path) -> Iterator[str]:
    """The address of an exporter of this Redis, host and port."""
    exporter = program("prometheus-redis-exporter", "prometheus-redis-exporter")
    address = f"127.0.0.1:{free_port()}"
    command = [exporter, "-redis.addr", redis_url, "-web.listen-address", address]
    with answering(command, f"http://{address}/metrics", folder / "exporter.log"):
        yield address


@contextlib.contextmanager
def alertmanager(configuration: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The address of an Alertmanager, host and port."""
    path = folder / "alertmanager.yaml"
    path.write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus-alertmanager", "prometheus-alertmanager"), f"--config.file={path}"]
    command += [
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with answering(command, f"http://{address}/-/ready", folder / "alertmanager.log"):
        yield address


@contextlib.contextmanager
def prometheus(
    targets: Targets,
    rules: Mapping[str, Any],
    folder: Path,
    *,
    data: Path | None = None,
    tells: str | None = None,
) -> Iterator[str]:
    """The URL of a Prometheus that reads targets by job and evaluates rules, both every second.

    Args:
        targets: host and port of each, by job; `point` changes them.
        rules: of which only the intervals are changed.
        folder: for its files.
        data: a database to begin with.
        tells: host and port of an Alertmanager.
    """
    server = program("prometheus", "prometheus")
    every_second = {"groups": [{**group, "interval": "1s"} for group in rules["groups"]]}
    (folder / "rules.yaml").write_text(yaml.safe_dump(every_second))
    point(targets, folder)
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "file_sd_configs": [{"files": [f"targets-{job}.json"], "refresh_interval": "1s"}]}
            for job in targets
        ],
    }
    if tells is not None:
        configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [tells]}]}]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    url = f"http://127.0.0.1:{free_port()}"
    command = [server, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={data or folder / 'data'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", "--enable-feature=exemplar-storage"]
    command += ["--rules.alert.resend-delay=1s"]
    with answering(command, f"{url}/-/ready", folder / "prometheus.log"):
        yield url


def point(targets: Targets, folder: Path) -> None:
    """Change what the Prometheus of a folder reads; the jobs stay."""
    for job, addresses in targets.items():
        (folder / "draft.json").write_text(json.dumps([{"targets": addresses}]))
        (folder / "draft.json").rename(folder / f"targets-{job}.json")  # is never read half-written


def database(lines: list[str], folder: Path) -> Path:
    """A database that holds samples in the text format of OpenMetrics, as if Prometheus had run before."""
    text, data = folder / "earlier.txt", folder / "data"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    command = [program("promtool", "prometheus"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return data


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """The samples that answer a query now."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    samples: list[dict[str, Any]] = answer["data"]["result"]
    return samples
