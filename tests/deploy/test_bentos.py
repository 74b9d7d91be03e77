"""Each bento builds from its own file, holds the serving code only, and serves on a machine that has nothing else."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from services.settings import Settings
from tests.conftest import free_port
from training.data.digits import load_digits

ROOT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")
ENTRY_SERVICES = {
    "bentofile.yaml": "services.allinone:AllInOne",
    "deploy/bentos/generation.yaml": "services.generation:Generation",
    "deploy/bentos/classification.yaml": "services.classification:Classification",
    "deploy/bentos/anomaly.yaml": "services.anomaly:Anomaly",
}

pytestmark = [pytest.mark.slow, pytest.mark.server]


def environment(home: Path) -> dict[str, str]:
    """Without DUET_ settings or a PYTHONPATH that could lend the server something."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_", "PYTHON"))}
    return kept | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


def bentoml(home: Path, *arguments: str | Path) -> str:
    command = [BENTOML, *arguments]
    run = subprocess.run(command, env=environment(home), cwd="/", check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def home(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BENTOML_HOME with models, for these tests' bentos alone."""
    home = tmp_path_factory.mktemp("bentoml")
    shutil.copytree(model_store / "models", home / "models")
    return home


@pytest.fixture(scope="module")
def bentos(home: Path) -> dict[str, Path]:
    """Build file -> the built bento."""
    built = {}
    for build_file in ENTRY_SERVICES:
        tag = bentoml(home, "build", "-f", ROOT / build_file, "-o", "tag", ROOT).strip()
        name, version = tag.removeprefix("__tag__:").split(":")
        built[build_file] = home / "bentos" / name / version
    return built


def description(bento: Path) -> dict[str, Any]:
    return yaml.safe_load((bento / "bento.yaml").read_text())


def test_each_build_file_builds_its_own_service(bentos: dict[str, Path]) -> None:
    built = {build_file: description(bento)["service"] for build_file, bento in bentos.items()}
    assert built == ENTRY_SERVICES
    assert len({bento.parent.name for bento in bentos.values()}) == len(ENTRY_SERVICES)


def test_a_bento_holds_the_serving_code_and_nothing_else(bentos: dict[str, Path]) -> None:
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "services").rglob("*.py")}
    for bento in bentos.values():
        source = bento / "src"
        packed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
        assert packed - {"bentofile.yaml"} == code


def test_a_bento_installs_the_locked_requirements(bentos: dict[str, Path]) -> None:
    locked = requirements(ROOT / "deploy/requirements/serve.txt")
    assert any(hashes for _, hashes in locked)
    for bento in bentos.values():
        assert requirements(bento / "env/python/requirements.txt") - {("bentoml==1.4.39", "")} == locked


def requirements(path: Path) -> set[tuple[str, str]]:
    """What a file installs on this machine, with the hashes; BentoML writes markers in another form."""
    found = set()
    for block in re.findall(r"^[a-z].*(?:\n +--hash.*)*", path.read_text(), re.MULTILINE):
        line, *hashes = [part.strip(" \\") for part in block.splitlines()]
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            found.add((f"{requirement.name}{requirement.specifier}", " ".join(hashes)))
    return found


def test_a_bento_names_the_models_that_it_serves(bentos: dict[str, Path]) -> None:
    def models(build_file: str) -> set[str]:
        services = description(bentos[build_file])["services"]
        return {model["tag"].split(":")[0] for service in services for model in service["models"]}

    assert models("deploy/bentos/generation.yaml") == {"digits-vae", "digits-gan"}
    assert models("deploy/bentos/classification.yaml") == {"digits-cnn"}
    assert models("deploy/bentos/anomaly.yaml") == {"digits-scorer"}
    assert models("bentofile.yaml") == {"digits-vae", "digits-gan", "digits-cnn", "digits-scorer"}


def test_an_exported_bento_serves_from_an_empty_machine(home: Path, bentos: dict[str, Path], tmp_path: Path) -> None:
    bento = bentos["deploy/bentos/classification.yaml"]
    archive = tmp_path / "bento.tar"
    bentoml(home, "export", f"{bento.parent.name}:{bento.name}", archive)
    exported = tmp_path / "bento"
    exported.mkdir()
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", exported], check=True)

    port = free_port()
    log = tmp_path / "log"
    arguments = ["serve", exported, "--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "20"]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [BENTOML, *arguments], env=environment(tmp_path / "empty"), cwd="/", stdout=stream, stderr=stream
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(server, url, log)
        test = load_digits().test
        answer = httpx.post(f"{url}/classify", json={"images": test.images[:1, 0].tolist(), "top_k": 3})
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["predictions"]
        assert len(result["top"]) == 3
        assert httpx.post(f"{url}/generate", json={}).status_code == 404
        server.send_signal(signal.SIGTERM)
        assert server.wait(Settings().request_timeout_ms / 1000 + 20) == 0, log.read_text()
    finally:
        server.kill()
        server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"not ready after 60 s:\n{log.read_text()}")
