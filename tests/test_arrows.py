"""The arrows of the house run one way only; every import of every module is read, late and typing-only ones too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import ROOT, circles_of, files_of, imports, modules

# Each layer may import those below it. Layers of one row know nothing of each other.
LAYERS: list[set[str]] = [
    {"generation", "classification", "anomaly", "allinone"},
    {"protocol"},
    {"tasks"},
    {"dataplane"},
    {"served", "default_models"},
    {"scheduling", "caching", "delivery"},
    {"inference"},
    {"call"},
    {"telemetry", "settings", "errors", "shims", "eager", "__version__"},
]
ENTRIES = LAYERS[0]
# What a service must run without: training's code and its libraries.
OFFLINE = {"training", "torch", "torchvision", "lightning_fabric", "onnx", "onnxscript", "sklearn", "matplotlib"}


def refusal(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, None where it may."""
    house, _, rest = module.partition(".")
    target_house, _, target = imported.partition(".")
    if house == "training":
        return _refusal_in_training(module, imported) if target_house == "services" else None
    if target_house in OFFLINE:
        return "services run without what trains models"
    if target_house != "services":
        return None
    here, there = rest.partition(".")[0], target.partition(".")[0]
    if here == there or (
        here == "commands" and there in {"inference", "caching", "delivery", "settings", "__version__"}
    ):
        return None
    if here == "commands" or there == "commands":
        return "commands stand beside the services and use inference, caching, delivery and settings alone"
    if here in ENTRIES and there in ENTRIES:
        return None if here == "allinone" else "only the all-in-one is made of other services"
    if _layer(here) >= _layer(there):
        return "the arrow points upwards or sideways"
    return None


def _refusal_in_training(module: str, imported: str) -> str | None:
    contract = ("services.inference.bundle", "services.inference.registry")
    if any(imported == name or imported.startswith(f"{name}.") for name in contract):
        return None
    commands = module in ("training.cli", "training.options") or module.startswith("training.commands.")
    if commands and imported.startswith("services.commands."):
        return None
    sampling = ("services.inference.chain", "services.inference.noise")
    if module == "training.evaluation.samplers" and imported.startswith(sampling):
        return None  # what is measured is what is served
    if module == "training.evaluation.explanations" and imported.startswith("services.inference.explanation."):
        return None  # what is checked is what is served
    if module == "training.data.folder" and imported.startswith("services.inference.photograph."):
        return None  # files are read for training as they are for requests
    return "training knows the bundle and the registry alone"


def _layer(name: str) -> int:
    for depth, names in enumerate(LAYERS):
        if name in names:
            return depth
    raise AssertionError(f"services.{name} has no place in LAYERS: give it one, here and in the architecture")


@pytest.mark.parametrize("package", ["services", "training"])
def test_no_import_goes_against_an_arrow(package: str) -> None:
    wrong = [
        f"{module} imports {imported}: {reason}"
        for module, path in modules(package)
        for imported in sorted(imports(module, path))
        if (reason := refusal(module, imported))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("services.dataplane", "training.data.load"),
        ("services.inference.session", "torch"),
        ("services.inference.session", "onnx.helper"),
        ("services.dataplane", "services.protocol.images.to_array"),
        ("services.caching.cache", "services.scheduling.batcher.Batcher"),
        ("services.scheduling.batcher", "services.dataplane.DataPlane"),
        ("services.errors", "services.settings.Settings"),
        ("services.telemetry.metrics", "services.inference.bundle"),
        ("services.anomaly", "services.classification.classify"),
        ("services.commands.predict", "services.dataplane.DataPlane"),
        ("services.protocol.native", "services.commands.serve"),
        ("training.run", "services.commands.serve"),
        ("training.export", "services.inference.session.Session"),
        ("training.export", "services.inference.explanation.rise"),
        ("training.cli", "services.dataplane.DataPlane"),
    ],
)
def test_a_wrong_arrow_is_noticed(module: str, imported: str) -> None:
    assert refusal(module, imported)


def test_late_relative_and_typing_imports_are_read(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("if TYPE_CHECKING:\n    import a.b\ndef f():\n    from ..c import d\n    from . import e\n")
    assert imports("services.protocol.module", path) == {"a.b", "services.c.d", "services.protocol.e"}


def test_the_services_load_nothing_that_trains_models(tmp_path: Path) -> None:
    # onnxruntime too must wait for the first model: BentoML's arbiter imports the services and never runs one.
    code = f"import sys, services.allinone; print(sorted({OFFLINE | {'onnxruntime'}!r} & set(sys.modules)))"
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["services", "loadtests", "deploy"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    assert circles_of(files_of(package)) == []
