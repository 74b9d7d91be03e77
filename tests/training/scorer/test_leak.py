"""How many false alarms a scorer has whose parts saw its calibration images; `pytest -s` prints the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.inference.bundle import Bundle, seal
from training.data import Dataset, Split, load
from training.data.dataset import ROLES, joined
from training.data.seen import SeenError
from training.export.bundle import export_bundle
from training.export.classifier import export_classifier
from training.export.generators import export_vae
from training.graphs.inference import score
from training.loops.classifier import train_cnn
from training.loops.defects import train_defects
from training.loops.launch import launch
from training.loops.run import open_run
from training.loops.vae import train_vae
from training.networks.cnn import CNNConfig
from training.recipes import RECIPES
from training.scorer.components import Parts
from training.scorer.export import export_scorer
from training.train import train

pytestmark = pytest.mark.nightly  # minutes

ALPHA = 0.05
SIZES = {  # of train, validation and calibration, by data set; the rest is test
    "digits": (400, 100, 599),  # a valid rate is 30 / 600 on average, which is alpha
    "mnist": (2000, 500, 1999),
}
SPLITS = {"digits": 4, "mnist": 1}


def shuffled(data: Dataset, sizes: tuple[int, ...], seed: int) -> Dataset:
    """The images of `data`, split anew into so many each; of what is left over, at most 10,000 are test."""
    whole = Split(
        np.concatenate([getattr(data, role).images for role in ROLES]),
        np.concatenate([getattr(data, role).labels for role in ROLES]),
    )
    order = np.random.default_rng(seed).permutation(len(whole))[: sum(sizes) + 10_000]
    return Dataset(data.name, data.class_names, *map(whole.take, np.split(order, np.cumsum(sizes))))


def fitted(network: str, dataset: Dataset, directory: Path, seed: int) -> Bundle:
    """The textbook CNN at half its size, or the demo's VAE, in fewer steps and without augmentation."""
    cnn, vae = RECIPES["classic"].networks["cnn"], RECIPES["demo"].networks["vae"]
    assert cnn is not None
    assert vae is not None
    run, fabric = open_run(directory, network, {}, resume=False), launch("cpu", 1)
    module: torch.nn.Module
    if network == "cnn":
        small = CNNConfig(channels=(16, 32), hidden=64)
        how = replace(cnn, network=small, epochs=40, batch_size=64, arithmetic="float32")
        module = train_cnn(fabric, dataset, how, run, seed=seed)
    else:
        module = train_vae(fabric, dataset, replace(vae, epochs=60, augment=None), run, seed=seed)
    export, task = (export_classifier, "classification") if network == "cnn" else (export_vae, "generation")
    what = {"name": f"{directory.name}-{network}", "task": task, "network": network, "recipe": "leak", "seed": seed}
    bare = export_bundle(export, module, dataset, **what, directory=directory / network)
    return seal(bare.path, bare.manifest)


def false_alarms(dataset: Dataset, tmp_path: Path, seed: int) -> dict[str, float]:
    """Shares of the test images with a p-value of at most `ALPHA`, by the parts that saw the calibration images."""
    seen = replace(dataset, train=joined(dataset.train, dataset.calibration), calibration=dataset.validation)
    recipe = RECIPES["demo"].networks["scorer"]
    assert recipe is not None
    run = open_run(tmp_path, "defects", {}, resume=False)
    defects = train_defects(launch("cpu", 1), dataset, replace(recipe.defects, steps=40), run, seed=seed)
    (cnn, cnn_seen), (vae, vae_seen) = (
        [fitted(network, data, tmp_path / name, seed) for name, data in {"apart": dataset, "seen": seen}.items()]
        for network in ("cnn", "vae")
    )
    chosen = {"none": (cnn, vae), "classifier": (cnn_seen, vae), "VAE": (cnn, vae_seen), "both": (cnn_seen, vae_seen)}
    found = {}
    for name, (classifier, generator) in chosen.items():
        parts = Parts(generator, defects, classifier, coreset_size=100)
        what = {"name": "leak-scorer", "task": "anomaly", "network": "scorer", "recipe": "leak", "seed": seed}
        scorer = export_bundle(export_scorer, parts, dataset, **what, directory=tmp_path / name)
        found[name] = float((score(scorer, dataset.test.images)["p_value"] <= ALPHA).mean())
    for role, part in {"classifier": cnn_seen, "generator": vae_seen}.items():
        how = {"seed": seed, "out": tmp_path, "resume": False, "accelerator": "cpu"}
        with pytest.raises(SeenError, match=rf"--{role} seen-\w+:\w+: it was trained with"):
            train(dataset, RECIPES["demo"], ["scorer"], **how, **{"classifier": cnn, role: part})
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SIZES)
def test_seen_calibration_images_raise_false_alarms_and_are_refused(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    rates = []
    for seed in range(SPLITS[name]):
        rates.append(false_alarms(shuffled(load(name), SIZES[name], seed), tmp_path / str(seed), seed))
        print(f"{name}, split {seed}: {rates[-1]}")
    mean = {parts: float(np.mean([rate[parts] for rate in rates])) for parts in rates[0]}
    print(f"{name}: false alarms at {ALPHA:.0%} by the parts that saw the calibration images: "
          + ", ".join(f"{parts} {rate:.2%}" for parts, rate in mean.items()))  # fmt: skip
    assert mean["none"] < 1.5 * ALPHA
    assert mean["both"] > mean["none"]
