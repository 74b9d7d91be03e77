"""Selects the arithmetic of a training, by the processor and never by a stopwatch: the weights depend on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import nn

from training.loops.progress import write
from training.loops.run import Run

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

Arithmetic = Literal["float32", "bfloat16"]
Choice = Literal["float32", "bfloat16", "fastest"]
NetworkT = TypeVar("NetworkT", bound=nn.Module)

NATIVE = ("amx_bf16", "avx512_bf16")  # processors that multiply in bfloat16; others only emulate it, which is slower


def choose_dtype(fabric: Fabric, run: Run, asked: Choice) -> Arithmetic:
    """The arithmetic of a run, the same on every process; a resumed run keeps its first one.

    It is written into the run's notes, and from there into the manifest.

    Args:
        fabric: launched.
        run: on the first process, its notes are read and written.
        asked: what the recipe gives; `fastest` is what `fastest` says of the device.
    """
    noted: Arithmetic | None = run.notes().get("arithmetic") if fabric.is_global_zero else None
    chosen: Arithmetic = fabric.broadcast(noted or (fastest(fabric.device.type) if asked == "fastest" else asked))
    if fabric.is_global_zero and noted is None:
        run.note(arithmetic=chosen)
        if asked == "fastest":
            write(f"{run.network}: training in {chosen}")
    return chosen


def fastest(device: str) -> Arithmetic:
    """bfloat16 where the device (cpu, cuda, mps) has instructions for it, else float32."""
    if device == "cpu":
        # Older versions of PyTorch cannot say what the processor has.
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bfloat16" if any(capabilities.get(name) for name in NATIVE) else "float32"
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float32"


def make_deterministic() -> None:
    """Let CUDA use kernels that add in the same order each time, so that a seed gives the same weights.

    Only the gradient of `grid_sample`, by which a GAN's samples are augmented, has no such kernel: PyTorch warns of it.
    CUBLAS_WORKSPACE_CONFIG must be set before the first use of the device.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False  # it would choose kernels by a stopwatch


def to_memory_format(network: NetworkT, order: torch.memory_format = torch.channels_last) -> NetworkT:
    """`network`, its weights in another memory order; the values stay.

    Channels last trains bfloat16 twice as fast if the processor supports it, and the reference classifier in float32 a
    sixth faster (AVX2); VAE and GAN in float32 are equally fast with both.
    """
    return network.to(memory_format=order)  # type: ignore[call-overload,no-any-return]


def autocast(device: torch.device, arithmetic: Arithmetic) -> torch.autocast:
    """A context whose convolutions and products are computed in `arithmetic`; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bfloat16")
