"""Evaluation of what is shipped: every figure comes from the exported ONNX graphs, never from PyTorch.

Three modules need torch: `samples` (torchmetrics), `gradient` and `attacks`. Others import them where they are used.
"""

from training.evaluation.report import EvaluationError, evaluate
from training.evaluation.tables import parity_table

__all__ = ["EvaluationError", "evaluate", "parity_table"]
