from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation import figures
from training.metrics.calibration import reliability

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (25, 1, 8, 8), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (25, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(25, dtype=np.int64) % 3
NAMES = ("cat", r"dog $\frac{$ <b>", "T-shirt/top")
P_VALUES = np.linspace(0, 1, 25)

DRAWN: dict[str, Callable[[Path], None]] = {
    "confusion": lambda path: figures.confusion_matrix(np.diag([3, 0, 2]), NAMES, path),
    "many classes": lambda path: figures.confusion_matrix(
        np.eye(40, dtype=np.int64), [str(i) for i in range(40)], path
    ),
    "reliability": lambda path: figures.reliability_diagram(
        *reliability(GENERATOR.dirichlet([1, 1, 1], 25), LABELS), path
    ),
    "grey": lambda path: figures.image_grid(GREY, 10, path),
    "rows": lambda path: figures.image_grid(COLOUR[:24], 8, path, NAMES),
    "captions": lambda path: figures.captioned(COLOUR[:3], NAMES, path, columns=2),
    "curves": lambda path: figures.curves(
        np.arange(5), {"accuracy": {name: GENERATOR.random(5) for name in NAMES}, "ECE": {}}, "severity", path
    ),
    "thousand classes": lambda path: figures.confusion_matrix(
        np.eye(1000, dtype=np.int64), [str(i) for i in range(1000)], path
    ),
    "plane": lambda path: figures.latent_map(GENERATOR.normal(size=(25, 2)), LABELS, NAMES, path),
    "one axis": lambda path: figures.latent_map(GENERATOR.normal(size=(25, 1)), None, (), path),
    "many axes": lambda path: figures.latent_map(GENERATOR.normal(size=(25, 7)), LABELS, NAMES, path),
    "heat": lambda path: figures.heat_maps(
        COLOUR[:3], GENERATOR.random((3, 8, 8)), P_VALUES[:3], names=NAMES, scale=0.0, path=path
    ),
    "rows of heat": lambda path: figures.heat_maps(
        COLOUR[:5], GENERATOR.random((5, 8, 8)), P_VALUES[:5], names=list("abcde"), scale=1.0, path=path, columns=2
    ),
    "shares": lambda path: figures.shares_found(dict.fromkeys(NAMES, P_VALUES / 2 + 0.01), P_VALUES + 0.01, path),
    "tables": lambda path: figures.heat_tables(
        {name: GENERATOR.random((4, 3)) for name in NAMES[:2]}, list("abcd"), NAMES, path
    ),
    "p": lambda path: figures.p_value_histogram(P_VALUES, path),
}


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_show_something_and_hold_no_metadata(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    DRAWN[name](path)
    with Image.open(path) as image:
        assert set(image.info) <= {"dpi"}
        assert len(np.unique(np.asarray(image))) > 5


def test_training_curves_have_a_panel_a_measure(tmp_path: Path) -> None:
    records = [{"epoch": n, "losses": {"a": 1 / (n + 1)}, "validation": {"a": 1.0, "b": 2.0}} for n in range(3)]
    figures.training_curves(records, tmp_path / "two.png")
    figures.training_curves([record | {"losses": {}} for record in records], tmp_path / "two_less.png")
    records = [record | {"validation": dict.fromkeys("abcde", 1.0)} for record in records]
    figures.training_curves(records, tmp_path / "five.png")
    for name, size in (("two", (800, 280)), ("two_less", (800, 280)), ("five", (1600, 560))):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == size


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    for file in ("one.png", "two.png"):
        figures.image_grid(GREY, 5, tmp_path / file)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_principal_axes_are_those_of_largest_variance() -> None:
    points = GENERATOR.normal(size=(500, 5)) * [1, 0.1, 30, 0.1, 5] + 7
    plane = figures.principal_axes(points)
    np.testing.assert_allclose(plane.std(axis=0), [30, 5], rtol=0.1)
    assert abs(np.corrcoef(plane[:, 0], points[:, 2])[0, 1]) > 0.99
    assert abs(np.corrcoef(plane[:, 1], points[:, 4])[0, 1]) > 0.99
    np.testing.assert_allclose(figures.principal_axes(-points), -plane, atol=1e-9)


def test_principal_axes_of_a_line() -> None:
    plane = figures.principal_axes(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(plane, [[-1, 0], [1, 0]])


def test_heat_maps_stand_below_their_images_in_every_row(tmp_path: Path) -> None:
    """Black images above white maps: half of each of three rows is black."""
    path = tmp_path / "rows.png"
    images, maps = np.zeros((5, 1, 8, 8), np.uint8), np.zeros((5, 8, 8))
    figures.heat_maps(images, maps, P_VALUES[:5], names=list("abcde"), scale=1.0, path=path, columns=2)
    with Image.open(path) as picture:
        dark = np.asarray(picture.convert("L")) < 20
    (left, right) = (dark[:, part].mean(axis=1) > 0.5 for part in (slice(0, 110), slice(110, None)))
    assert np.diff(left.astype(int)).clip(0).sum() == 3
    assert np.diff(right.astype(int)).clip(0).sum() == 2
