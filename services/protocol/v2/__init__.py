"""The Open Inference Protocol V2 over HTTP, JSON and binary tensors: any Triton, KServe or MLServer client works.

Sources: the KServe "Open Inference Protocol" specification and Triton's binary tensor data extension.
"""
