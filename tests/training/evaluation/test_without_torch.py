"""Evaluation runs where torch is not installed, but for the module that ARCHITECTURE.md names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
NEED_TORCH = ["classifiers.attacks"]
SCRIPT = """
import importlib, json, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchmetrics", "lightning_fabric", "onnxscript"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import training.evaluation

failed = []
for module in pkgutil.walk_packages(training.evaluation.__path__, "training.evaluation."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError:
        failed.append(module.name.removeprefix("training.evaluation."))
print(json.dumps(sorted(failed)))
"""


def test_every_other_module_is_imported_without_torch() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == NEED_TORCH
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    assert all(f"`{name.replace('.', '/')}.py`" in architecture for name in NEED_TORCH)
