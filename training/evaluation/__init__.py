"""Evaluation of what is shipped: every figure comes from the exported ONNX graphs, never from PyTorch.

Three modules need torch: `samples` (torchmetrics), `gradient` and `attacks`. Others import them where they are used.
"""

from training.evaluation.compatibility import EvaluationError
from training.evaluation.tables import parity_table
from training.publishing.report import evaluate

__all__ = ["EvaluationError", "evaluate", "parity_table"]
