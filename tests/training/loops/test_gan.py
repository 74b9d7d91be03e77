from collections.abc import Callable
from dataclasses import replace

import torch
from lightning_fabric import Fabric

from tests.training.loops import conftest
from training.data import Dataset, Split
from training.loops.gan import train_gan
from training.run import Run


def test_samples_come_near_the_data(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a", "gan")
    generator = train_gan(fabric, digits, replace(conftest.GAN, epochs=12, average=0.9), run, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        pixels = generator(torch.randn(200, generator.latent_size), torch.arange(10).repeat(20))
    data_mean = torch.tensor(digits.train.images).float().mean(0) / 255
    untrained = (torch.full_like(data_mean, 0.5) - data_mean).abs().mean()
    assert (pixels.mean(0) - data_mean).abs().mean() < untrained / 3
    assert not generator.training
    assert (run.pictures / "epoch-0012.png").exists()


def test_data_without_labels_are_one_class(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    splits = {role: Split(getattr(digits, role).images) for role in ("train", "validation", "calibration", "test")}
    unlabelled = Dataset("unlabelled", (), **splits)
    generator = train_gan(fabric, unlabelled, replace(conftest.GAN, epochs=1), new_run("a", "gan"), seed=0)
    assert generator.embed.num_embeddings == 1
