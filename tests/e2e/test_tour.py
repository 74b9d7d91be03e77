"""The tour of the first tutorial, typed into a shell, against the all-in-one and three services that share a Redis."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"```console\n\$ (curl .*)\n((?:.*\n)*?)```")
STEPS = STEP.findall((ROOT / "docs" / "tutorials" / "first-steps.md").read_text())
SERVICES = {
    "classification": ("/classify",),
    "generation": ("/generate", "/interpolate", "/reconstruct"),
    "anomaly": ("/score",),
}

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(scope="module")
def one_process(allinone_url: str) -> dict[str, str]:
    return {route: allinone_url for routes in SERVICES.values() for route in routes}


@pytest.fixture
def three_services(serve: Any, redis_server: Any) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(name, DUET_REDIS_URL=redis_server.url)) for name in SERVICES}
        yield {route: servers[name].url for name, routes in SERVICES.items() for route in routes}


def curl(command: str, urls: dict[str, str], scratch: Path) -> str:
    """Run a command of the tour; what it writes goes to `scratch`."""
    found = re.search(r"localhost:3000(/\w+)", command)
    assert found, command
    for picture in (ROOT / "docs" / "pictures").glob("*.png"):
        command = command.replace(f"docs/pictures/{picture.name}", str(picture))
    command = command.replace("localhost:3000", urls[found[1]].removeprefix("http://"))
    run = subprocess.run(command, shell=True, cwd=scratch, check=True, capture_output=True, text=True)
    return run.stdout


def outline(answer: Any) -> Any:
    """The names and types of an answer, not its numbers: models differ from machine to machine in the last digits."""
    if isinstance(answer, dict):
        return {name: outline(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [outline(value) for value in answer]
    return type(answer).__name__


def check(urls: dict[str, str], scratch: Path) -> list[str]:
    """Every step of the tour answers as documented; returns the answers."""
    assert shutil.which("curl"), "the tour needs curl (Debian: apt-get install curl)"
    answers = []
    for command, documented in STEPS:
        answer = curl(command, urls, scratch)
        answers.append(answer)
        if file := re.search(r" -o (\S+)", command):
            if file[1].endswith(".jsonl"):
                first, *samples, last = map(json.loads, (scratch / file[1]).read_text().splitlines())
                assert first["count"] == len(samples) == last["drawn"]
                continue
            with Image.open(scratch / file[1]) as image:
                assert image.width > 28
            continue
        told, came = json.loads(documented.replace("\n", " ")), json.loads(answer)
        assert outline(came) == outline(told), command
        labels = [[prediction["label"] for prediction in each.get("predictions", [])] for each in (told, came)]
        assert labels[0] == labels[1], command
        verdicts = [[score["anomalous"] for score in each.get("scores", [])] for each in (told, came)]
        assert verdicts[0] == verdicts[1], command
        if "detail" in told:
            assert came == told, command
    return answers


def test_the_tour_has_a_step_for_every_native_route() -> None:
    assert {route for command, _ in STEPS for route in re.findall(r"localhost:3000(/\w+)", command)} == {
        route for routes in SERVICES.values() for route in routes
    }


def test_readme_has_five_steps_of_the_tour() -> None:
    steps = STEP.findall((ROOT / "README.md").read_text())
    assert len(steps) == 5
    assert set(steps) < set(STEPS)


def test_the_tour_passes_on_the_all_in_one(one_process: dict[str, str], tmp_path: Path) -> None:
    check(one_process, tmp_path)


def test_the_tour_passes_on_three_services_with_redis_twice_alike(
    three_services: dict[str, str], redis_server: Any, tmp_path: Path
) -> None:
    first = check(three_services, tmp_path)
    again = check(three_services, tmp_path)
    assert first == again
    keys = subprocess.run(
        ["redis-cli", "-p", str(redis_server.port), "dbsize"], check=True, capture_output=True, text=True
    )
    assert int(keys.stdout) > 0, "nothing reached Redis"
