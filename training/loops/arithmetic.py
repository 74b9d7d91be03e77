"""Selects the faster arithmetic of a network on this machine: measured once, then kept for the whole run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from training.loops.progress import write
from training.run import Run

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

Arithmetic = Literal["float32", "bfloat16"]
NetworkT = TypeVar("NetworkT", bound=nn.Module)

BOTH: tuple[Arithmetic, ...] = ("float32", "bfloat16")
STEPS = 5
GAIN = (
    0.9  # bfloat16 is used if it takes less than this share of float32's time; a smaller gain is not worth its rounding
)


def choose(fabric: Fabric, run: Run, network: NetworkT, loss: Callable[[NetworkT], Tensor]) -> Arithmetic:
    """The faster arithmetic for steps of `network` on `loss` of it; a resumed run keeps its first choice.

    The weights depend on the choice, so it is written into the run's notes.
    """
    noted: Arithmetic | None = fabric.broadcast(run.notes().get("arithmetic"))
    if noted is not None:
        return noted
    seconds = {arithmetic: _seconds(fabric.device, network, loss, arithmetic) for arithmetic in BOTH}
    faster: Arithmetic = "bfloat16" if seconds["bfloat16"] < GAIN * seconds["float32"] else "float32"
    faster = fabric.broadcast(faster)
    if fabric.is_global_zero:
        run.note(arithmetic=faster)
        times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
        write(f"{run.network}: training in {faster} ({times} a step)")
    return faster


def lay_out(network: NetworkT, order: torch.memory_format = torch.channels_last) -> NetworkT:
    """`network`, its weights in another memory order; the values stay.

    Channels last trains bfloat16 twice as fast if the processor supports it, and the reference classifier in float32 a
    sixth faster (AVX2); VAE and GAN in float32 are equally fast with both.
    """
    return network.to(memory_format=order)  # type: ignore[call-overload,no-any-return]


def rounding(device: torch.device, arithmetic: Arithmetic) -> torch.autocast:
    """A context whose convolutions and products are computed in `arithmetic`; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bfloat16")


def _seconds(
    device: torch.device, network: NetworkT, loss: Callable[[NetworkT], Tensor], arithmetic: Arithmetic
) -> float:
    """The fastest of a few steps on a copy of the network: other programs only make a step slower."""
    copied = lay_out(copy.deepcopy(network).to(device)).train()
    fastest = float("inf")
    for _ in range(STEPS):
        start = time.perf_counter()
        with rounding(device, arithmetic):
            value = loss(copied)
        value.backward()  # type: ignore[no-untyped-call]
        value.item()  # waits for the device
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
