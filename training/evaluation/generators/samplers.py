"""Compares samples chosen by Metropolis-Hastings with samples of the prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from services.inference.bundle import Bundle
from services.inference.chain import STEPS, Chains
from services.inference.noise import latents
from training.data import Dataset
from training.data.arrays import Images, Labels, evenly_spaced
from training.evaluation.generators.judge import judge_of
from training.evaluation.generators.sample_metrics import MINIMUM, SAMPLES
from training.graphs.inference import balanced_labels
from training.graphs.session import open_graph, run

SEEDS = (0, 1, 2)
MEASURES = ("conditional_accuracy", "frechet_distance", "precision", "recall", "coverage")
TOGETHER = 500  # chains that run at once


def samplers_metrics(bundle: Bundle, dataset: Dataset, judge: Bundle, progress: str = "") -> dict[str, float]:
    """Metrics of the samples of both samplers, as many as in `gan_metrics`, as means over three seeds.

    `NAME/prior` and `NAME/metropolis-hastings`; with `_sd` after the name, the standard deviation over the seeds.
    frechet_distance_gain: by which share of the prior's distance the chains are better. A chain costs 32 samples and
    runs of the discriminator. Empty for a GAN that does not draw by class.
    """
    from training.metrics.samples import class_metrics, distribution_metrics  # noqa: PLC0415  (imports torch)

    count = max(MINIMUM, min(len(dataset.test), SAMPLES))
    labels = balanced_labels(bundle, count)
    if labels is None:
        return {}
    extract = judge_of(judge)
    real = extract(dataset.train.images[evenly_spaced(len(dataset.train), count)])
    metrics: dict[str, float] = {}
    distances = []
    for sampler, chosen in (("prior", False), ("metropolis-hastings", True)):
        rows = []
        for seed in SEEDS:
            told = f"{progress}, {sampler}, seed {seed}" if progress else ""
            drawn = extract(sampled(bundle, seed, labels, chosen=chosen, progress=told))
            rows.append(class_metrics(drawn, labels) | distribution_metrics(drawn, real))
        for name in MEASURES:
            values = [row[name] for row in rows]
            metrics[f"{name}/{sampler}"] = float(np.mean(values))
            metrics[f"{name}_sd/{sampler}"] = float(np.std(values, ddof=1))
        distances.append(np.array([row["frechet_distance"] for row in rows]))
    gains = 1 - distances[1] / distances[0]
    return metrics | {
        "frechet_distance_gain": float(gains.mean()),
        "frechet_distance_gain_sd": float(gains.std(ddof=1)),
        "draws/metropolis-hastings": float(STEPS),
    }


def sampled(bundle: Bundle, seed: int, labels: Labels, *, chosen: bool, progress: str = "") -> Images:
    """The samples [N,C,H,W] of the labels [N] that /generate draws for that seed.

    Args:
        bundle: a GAN that draws by class.
        seed: as in a request.
        labels: class indices.
        chosen: by Metropolis-Hastings chains, not directly from the prior.
        progress: the label of a progress bar; empty for none.
    """
    decoder, discriminator = (open_graph(bundle.graph_path(name)) for name in ("decode", "discriminate"))

    def draw(numbers: Sequence[int], wanted: Labels) -> Images:
        noise = latents(seed, numbers, bundle.manifest.latent_size or 0)
        images: Images = run(decoder, {"latents": noise, "labels": wanted})["images"]
        return images

    starts = range(0, len(labels), TOGETHER)
    parts = []
    for start in track(starts, progress, console=Console(stderr=True), transient=True) if progress else starts:
        wanted = labels[start : start + TOGETHER]
        items = range(start, start + len(wanted))
        if not chosen:
            parts.append(draw(items, wanted))
            continue
        chains = Chains(seed, items)
        for numbers in chains.draws():
            images = draw(numbers, wanted)
            chains.propose(images, run(discriminator, {"images": images, "labels": wanted})["log_ratio"])
        parts.append(chains.images)
    return np.concatenate(parts)
