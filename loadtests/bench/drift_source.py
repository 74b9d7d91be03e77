"""Where the p-values and classes of the simulation of drift come from: simulated calibration sets, or a real scorer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from services.inference.bundle import load
from services.inference.drift.detector import Drift
from services.inference.drift.events import Events
from services.inference.scorer import Scorer
from training.data.idx import read_idx

CLASSES = 10
CAUGHT = 0.9


@dataclass(frozen=True, eq=False)
class Source:
    """A scorer with its calibration set, and the images that it is asked about.

    Attributes:
        size: number of calibration images.
        class_sizes: of the calibration images.
        normal, strange: probabilities of the cells of p-values of an image (see `Events`).
        normal_classes, strange_classes: probabilities of its predicted class.
    """

    size: int
    class_sizes: tuple[int, ...]
    normal: np.ndarray
    strange: np.ndarray
    normal_classes: np.ndarray
    strange_classes: np.ndarray

    def events(self, tolerated: float) -> Events:
        return Events(self.size, self.class_sizes, tolerated)

    def drift(self) -> Drift:
        return Drift("simulated", self.size, self.class_sizes, [str(label) for label in range(len(self.class_sizes))])

    def cells(self, share: float) -> np.ndarray:
        """Probabilities of the cells of an image that is strange with the given probability."""
        return np.asarray((1 - share) * self.normal + share * self.strange)

    def classes(self, share: float) -> np.ndarray:
        return np.asarray((1 - share) * self.normal_classes + share * self.strange_classes)

    def draw(self, random: np.random.Generator, count: int, share: float) -> tuple[list[float], list[int]]:
        """p-values and classes of so many images."""
        values, cells, classes = self._tables(share)
        drawn = random.random((2, count))
        return values[cells.searchsorted(drawn[0])].tolist(), classes.searchsorted(drawn[1]).tolist()

    @lru_cache(maxsize=512)  # noqa: B019, sources stay until the program ends
    def _tables(self, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A p-value in each cell, and the distribution functions of cells and classes without their last value, 1."""
        values = np.append(self.events(0).expected[: len(self.normal) - 1], 1.0)
        return values, self.cells(share).cumsum()[:-1], self.classes(share).cumsum()[:-1]


def simulated(size: int, seed: int, caught: float = CAUGHT) -> Source:
    """A calibration set whose p-values are not quite uniform, and that shows the shares of classes imprecisely.

    Of anomalies the share `caught` gets the smallest p-value; the others are like normal images.
    """
    random = np.random.default_rng([seed, size])
    calibration = np.sort(random.random(size))
    sizes = tuple(random.multinomial(size, np.full(CLASSES, 1 / CLASSES)).tolist())
    events = Events(size, sizes, 0)
    # A p-value is at most k / (n + 1) if the score is above all but k - 1 of the calibration scores.
    ranks = np.round(events.expected[events.kinds["rate"]] * (size + 1)).astype(int)
    normal = np.diff(np.concatenate([[0.0], 1 - calibration[size - ranks], [1.0]]))
    strange = (1 - caught) * normal
    strange[0] += caught
    uniform = np.full(CLASSES, 1 / CLASSES)
    return Source(size, sizes, normal, strange, uniform, uniform)


def reference(data: Path) -> Source:
    """`mnist-scorer` on the test images of MNIST, which are normal, and of Fashion-MNIST, which are strange."""
    scorer = Scorer(load(Path(str(files("services.reference") / "mnist-scorer"))))
    events = Events(scorer.calibration_size, scorer.class_sizes, 0)
    rates, classes = [], []
    for name in ("mnist", "fashion-mnist"):
        images = read_idx(data / name / "t10k-images-idx3-ubyte.gz")[:, None]
        outputs = [scorer.run("score", {"images": part}) for part in np.array_split(images, len(images) // 50)]
        cells = np.searchsorted(events.edges, np.concatenate([output["p_value"] for output in outputs]))
        labels = np.concatenate([output["label"] for output in outputs])
        rates.append(np.bincount(cells, minlength=events.cells) / len(images))
        classes.append(np.bincount(labels, minlength=len(scorer.class_sizes)) / len(images))
    return Source(scorer.calibration_size, scorer.class_sizes, *rates, *classes)
