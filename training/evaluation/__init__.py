"""Evaluation of what is shipped: every figure comes from the exported ONNX graphs, never from PyTorch."""

from training.evaluation.report import EvaluationError, evaluate
from training.evaluation.tables import parity_table

__all__ = ["EvaluationError", "evaluate", "parity_table"]
