from __future__ import annotations

from pathlib import Path

import pytest

from training.data import load


@pytest.mark.parametrize("spec", ["", "cifar10", "MNIST", "folder", "folder:", "digits:x", "mnist:/data"])
def test_unknown_spec_lists_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match=f"'{spec}' is unknown; give digits, mnist, fashion-mnist or folder:PATH"):
        load(spec)


@pytest.mark.parametrize("spec", ["digits", "mnist", "fashion-mnist"])
def test_size_and_colour_are_not_ignored_but_refused_where_they_do_not_apply(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"image_size 32, colour False: {spec} is grey and 28x28"):
        load(spec, image_size=32, folder=tmp_path)
    with pytest.raises(ValueError, match=f"image_size 28, colour True: {spec} is grey and 28x28"):
        load(spec, colour=True, folder=tmp_path)
