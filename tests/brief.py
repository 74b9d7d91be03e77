"""The `duet` command with recipes that take less time: `python -m tests.brief train --dataset digits`.

The tests of services need models that pass their gates, not the best ones. `make demo` and `-m nightly` train the whole
demo recipe.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from torch.onnx._internal.exporter._registration import ONNXRegistry

from training.cli import main
from training.recipes import RECIPES, Recipe


def shortened(demo: Recipe) -> Recipe:
    networks = demo.networks
    vae = replace(networks["vae"], epochs=50)
    defects = replace(networks["scorer"].defects, steps=150)
    return demo.changed(
        cnn=replace(networks["cnn"], epochs=18),
        vae=vae,
        gan=replace(networks["gan"], epochs=26, picture_every=13),
        scorer=replace(networks["scorer"], vae=vae, defects=defects),
    )


def smaller(reference: Recipe) -> Recipe:
    """The conditional VAE of the digits with half the channels and fewer epochs."""
    digits = reference.for_dataset("digits")
    network = replace(digits.networks["cvae"].network, channels=16)
    cvae = replace(digits.networks["cvae"], network=network, epochs=28, arithmetic="float32")
    return replace(reference, per_dataset={"digits": digits.changed(cvae=cvae)})


def reuse_table_of_operators() -> None:
    """The exporter builds the same table at every export, which takes half a second: from now on it is built once."""
    if not isinstance(ONNXRegistry.__dict__["from_torchlib"], staticmethod):
        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


if __name__ == "__main__":
    reuse_table_of_operators()
    RECIPES["demo"] = shortened(RECIPES["demo"])
    RECIPES["reference"] = smaller(RECIPES["reference"])
    main()
