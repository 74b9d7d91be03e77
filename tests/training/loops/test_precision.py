from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from training.loops.precision import Choice, autocast, choose_dtype, fastest, make_deterministic, to_memory_format
from training.loops.run import Run
from training.networks.residual_cnn import ResidualCNNConfig

IMAGES = torch.rand(16, 1, 12, 12)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "amx_bf16": False}, "float32"),
        ({"neon": True}, "float32"),
    ],
)
def test_the_processor_decides_and_the_choice_is_noted(
    capabilities: dict[str, bool],
    expected: str,
    fabric: Fabric,
    new_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    run = new_run("a")
    assert choose_dtype(fabric, run, "fastest") == expected
    assert run.notes()["arithmetic"] == expected


def test_no_stopwatch_decides(fabric: Fabric, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a clock says: the same machine makes the same choice each time."""
    times = iter(range(0, 10**6, 7))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(times)) ** 2)
    assert {choose_dtype(fabric, new_run(str(i)), "fastest") for i in range(3)} == {fastest("cpu")}
    assert next(times) == 0


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_a_recipe_may_fix_it(asked: Choice, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    assert choose_dtype(fabric, run, asked) == asked
    assert run.notes()["arithmetic"] == asked


def test_a_resumed_run_keeps_its_choice(fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    other = "float32" if choose_dtype(fabric, run, "fastest") == "bfloat16" else "bfloat16"
    run.note(arithmetic=other)
    assert choose_dtype(fabric, new_run("a", resume=True), "fastest") == other


@pytest.mark.parametrize("network", ["cnn", "vae", "gan", "scorer"])
def test_every_loop_notes_its_arithmetic(network: str, trains: Any, new_run: Callable[..., Run]) -> None:
    run = new_run("a", network)
    trains[network](run)
    assert run.notes()["arithmetic"] == "float32"


def test_cuda_adds_in_the_same_order_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


def test_bfloat16_rounds_and_float32_does_not() -> None:
    network = to_memory_format(ResidualCNNConfig(8).build((1, 12, 12), 3)).eval()
    exact = network(IMAGES)
    with autocast(torch.device("cpu"), "float32"):
        assert torch.equal(network(IMAGES), exact)
    with autocast(torch.device("cpu"), "bfloat16"):
        rounded = network(IMAGES)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), exact, atol=0.05)


def test_a_layout_changes_no_value() -> None:
    network = ResidualCNNConfig(8).build((1, 12, 12), 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    to_memory_format(network)
    assert any(not weight.is_contiguous() for weight in network.parameters())
    to_memory_format(network, torch.contiguous_format)
    assert all(weight.is_contiguous() for weight in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
