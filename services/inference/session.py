"""One ONNX graph in ONNX Runtime on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from services.inference.bundle import BundleError

if TYPE_CHECKING:  # imported when used: BentoML's arbiter loads this module, but needs no runtime (29 MB)
    import onnxruntime

Arrays = dict[str, np.ndarray]
REGISTERING = threading.Lock()  # sessions are loaded in several threads


@cache
def _share_arena() -> None:
    """Give all sessions one arena for what a run needs.

    By itself each session keeps the memory of its largest batch, although they run one after another: of ten models
    after batches of 64 that are 240 MB instead of 120.
    """
    import onnxruntime  # noqa: PLC0415

    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", kind, 0, use), None)


class Session:
    """A loaded graph; `run` may be called from several threads.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take CPU time from the HTTP side.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        with REGISTERING:
            _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> Arrays:
        """`outputs` (all by default) of one batch.

        The whole graph always runs: `RunOptions.only_execute_path_to_fetches` has an effect in training builds of ONNX
        Runtime only (its issue 16013). An expensive output needs its own graph.
        """
        names = tuple(outputs or self.outputs)
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
