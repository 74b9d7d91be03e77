"""The network that is served: the classic CNN on 28 x 28 images, trained here if the home holds none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from loadtests.bench import cores
from services.inference import bundle
from services.inference.bundle import Bundle
from services.inference.session import Session
from training.data.digits import load_digits

HOME = Path(".duet/bench")
SHAPE = (1, 28, 28)


def find(home: Path) -> Bundle:
    """The newest classifier of 28 x 28 images in a BENTOML_HOME; it is verified."""
    manifests = sorted(home.glob("models/*/*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in manifests:
        found = bundle.load(path.parent)
        if found.manifest.task == "classification" and found.manifest.image.shape == SHAPE:
            return found
    sys.exit(f"--home {home}: no classifier of {SHAPE} images there; leave --home out to have one trained")


def ready(home: Path | None) -> tuple[Path, Bundle]:
    """The home to serve from, and its bundle."""
    if home is None:
        home = HOME
        if not list(home.glob("models/*/*/manifest.json")):
            train(home)
    return home, find(home)


def train(home: Path) -> None:
    """Train the classic CNN on the digits for some seconds and store it in `home`.

    The classic recipe's ten epochs are meant for MNIST; with so few digits the bundle's gates need more.
    """
    import torch  # noqa: PLC0415

    from training.kinds import KINDS  # noqa: PLC0415
    from training.networks.cnn import CNNConfig  # noqa: PLC0415
    from training.publishing.publish import publish  # noqa: PLC0415

    Console().print(f"training the classic CNN on the digits, into {home} ...")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.train.images).float() / 255
    assert digits.train.labels is not None
    labels = torch.from_numpy(digits.train.labels)
    cnn = CNNConfig().build(digits.image_shape, len(digits.class_names))
    optimizer = torch.optim.Adam(cnn.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.split(torch.randperm(len(images)), 64):
            loss = torch.nn.functional.cross_entropy(cnn(images[rows]), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        (made,) = publish(KINDS["cnn"], cnn.eval(), digits, recipe="bench", seed=0, run_dir=Path(folder))
        store(made.path, home)


def store(directory: Path, home: Path) -> None:
    """Import a bundle into a home that need not be this process's."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "training", "models", "import", str(directory.absolute())]
    environment = os.environ | {"BENTOML_HOME": str(home.absolute()), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run(command, env=environment, cwd=cores.ROOT, check=True, stdout=subprocess.DEVNULL)


def digits(count: int) -> np.ndarray:
    """Held-out digits, uint8 [count,1,28,28]."""
    return np.resize(load_digits().test.images, (count, *SHAPE))


def answer(served: Bundle, images: np.ndarray) -> tuple[int, float]:
    """Class and probability of the first image, by the graph itself."""
    row = Session(served.graph_path("classify")).run({"images": images[:1]})["probabilities"][0]
    return int(row.argmax()), float(row.max())
