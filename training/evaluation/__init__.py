"""Evaluation of what is shipped: every figure comes from the exported ONNX graphs, never from PyTorch.

Only `classifiers/attacks` needs torch at import; distances of samples need it when they are computed.
"""
