from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from training.loops import arithmetic
from training.loops.arithmetic import choose, lay_out, rounding
from training.networks.residual_cnn import ResidualCNN, ResidualCNNConfig
from training.run import Run

NETWORK = ResidualCNNConfig(8).build((1, 12, 12), 3)
IMAGES, LABELS = torch.rand(16, 1, 12, 12), torch.arange(16) % 3


def loss(network: ResidualCNN) -> torch.Tensor:
    return F.cross_entropy(network(IMAGES).float(), LABELS)


@pytest.mark.parametrize(("faster", "slower"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_faster_is_chosen_and_noted(
    faster: str, slower: str, fabric: Fabric, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {faster: 1.0, slower: 2.0}
    monkeypatch.setattr(arithmetic, "_seconds", lambda *arguments: seconds[arguments[-1]])
    run = new_run("a")
    assert choose(fabric, run, NETWORK, loss) == faster
    assert run.notes()["arithmetic"] == faster


def test_a_resumed_run_keeps_its_choice(fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    chosen = choose(fabric, run, NETWORK, loss)  # really measured
    other = "float32" if chosen == "bfloat16" else "bfloat16"
    run.note(arithmetic=other)
    assert choose(fabric, new_run("a", resume=True), NETWORK, loss) == other


def test_measuring_leaves_network_and_draws_alone(fabric: Fabric, new_run: Callable[..., Run]) -> None:
    before = {name: value.clone() for name, value in NETWORK.state_dict().items()}
    torch.manual_seed(0)
    choose(fabric, new_run("a"), NETWORK, loss)
    draw = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(draw, torch.rand(3))
    assert all(torch.equal(before[name], value) for name, value in NETWORK.state_dict().items())
    assert all(weight.grad is None for weight in NETWORK.parameters())


def test_bfloat16_rounds_and_float32_does_not() -> None:
    network = lay_out(ResidualCNNConfig(8).build((1, 12, 12), 3)).eval()
    exact = network(IMAGES)
    with rounding(torch.device("cpu"), "float32"):
        assert torch.equal(network(IMAGES), exact)
    with rounding(torch.device("cpu"), "bfloat16"):
        rounded = network(IMAGES)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), exact, atol=0.05)


def test_a_layout_changes_no_value() -> None:
    network = ResidualCNNConfig(8).build((1, 12, 12), 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lay_out(network)
    assert any(not weight.is_contiguous() for weight in network.parameters())
    lay_out(network, torch.contiguous_format)
    assert all(weight.is_contiguous() for weight in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
