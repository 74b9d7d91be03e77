"""Starting the processes of a training."""

from __future__ import annotations

import os

from lightning_fabric import Fabric

from training.loops.precision import make_deterministic


def launch(accelerator: str, devices: int) -> Fabric:
    """A launched Fabric; under torchrun, the number of processes and nodes is torchrun's."""
    from lightning_fabric import Fabric  # noqa: PLC0415 (takes two seconds, and options are checked before)

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # see make_deterministic
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    nodes = int(os.environ.get("WORLD_SIZE", processes)) // processes
    fabric = Fabric(accelerator=accelerator, devices=processes, num_nodes=nodes)
    fabric.launch()
    if fabric.device.type == "cuda":
        make_deterministic()
    return fabric
