from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from tests.training.conftest import Published
from tests.training.loops import conftest
from training.data import Dataset, Split
from training.evaluation.generators.collapse import CollapseMonitor
from training.kinds import KINDS
from training.loops.gan import GANRecipe, sample, train_gan
from training.loops.run import Run
from training.publishing.gates import GateError
from training.publishing.publish import publish


@pytest.mark.parametrize(
    "recipe",
    [
        conftest.GAN,
        replace(conftest.GAN, loss="relativistic"),
        replace(
            conftest.GAN, loss="relativistic", penalty=0.1, network=replace(conftest.GAN.network, spectral_norm=False)
        ),
    ],
    ids=["hinge", "relativistic", "penalised"],
)
def test_samples_come_near_the_data(
    recipe: GANRecipe, digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]
) -> None:
    run = new_run("a", "gan")
    generator = train_gan(fabric, digits, replace(recipe, epochs=12, ema_half_life=210.0), run, seed=0).generator
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
    generator = train_gan(fabric, unlabelled, replace(conftest.GAN, epochs=1), new_run("a", "gan"), seed=0).generator
    assert generator.embed.num_embeddings == 1


@pytest.mark.slow
def test_the_judge_chooses_the_epoch(published: Published, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run, dataset, judge = new_run("a", "gan"), published.dataset, published.classifier
    generator = train_gan(
        fabric,
        dataset,
        replace(conftest.GAN, epochs=6, picture_every=1),
        run,
        seed=0,
        monitor=CollapseMonitor(dataset, judge),
    ).generator
    monitor = CollapseMonitor(dataset, judge)
    kept = monitor(sample(generator, torch.from_numpy(monitor.labels), 0).numpy())["frechet_distance"]
    judged = [record["validation"]["frechet_distance"] for record in run.records()]
    assert len(judged) == 6
    assert kept == pytest.approx(min(judged), rel=1e-4)


@pytest.mark.slow
def test_a_run_made_to_collapse_is_seen_and_not_stored(
    published: Published,
    fabric: Fabric,
    new_run: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Against a discriminator that never learns, the generator draws the one image of each class that it likes best.
    recipe = replace(
        conftest.GAN, epochs=4, discriminator_learning_rate=0.0, generator_learning_rate=5e-3, ema_half_life=32.0
    )
    run, dataset, judge = new_run("a", "gan"), published.dataset, published.classifier
    generator = train_gan(fabric, dataset, recipe, run, seed=0, monitor=CollapseMonitor(dataset, judge))
    assert "epoch-0004: the generator has collapsed" in capsys.readouterr().err
    with pytest.raises(GateError, match=r"digits-gan: (coverage_ratio|relative_diversity|near_duplicates)"):
        publish(KINDS["gan"], generator, dataset, recipe="made to collapse", seed=0, run_dir=tmp_path, judge=judge)
