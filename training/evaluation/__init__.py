"""Evaluation of what is shipped: every figure comes from the exported ONNX graphs, never from PyTorch.

Three modules need torch: `metrics/samples` (torchmetrics), `graphs/gradient` and `classifiers/attacks`. Others import
them where they are used.
"""
