"""The `duet` command with a demo recipe of fewer steps: `python -m tests.brief train --dataset digits`.

The tests of services need models that pass their gates, not the best ones. `make demo` and `-m nightly` train the whole
recipe.
"""

from __future__ import annotations

from dataclasses import replace

from training.cli import main
from training.recipes import RECIPES, Recipe


def shortened(demo: Recipe) -> Recipe:
    assert demo.vae
    assert demo.gan
    assert demo.scorer
    vae = replace(demo.vae, epochs=50)
    defects = replace(demo.scorer.defects, steps=150)
    return replace(
        demo,
        vae=vae,
        gan=replace(demo.gan, epochs=30, picture_every=15),
        scorer=replace(demo.scorer, vae=vae, defects=defects),
    )


if __name__ == "__main__":
    RECIPES["demo"] = shortened(RECIPES["demo"])
    main()
