from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from services.commands import drawing as command
from services.inference.noise import latents
from training.cli import app
from training.data import load
from training.graphs.session import open_graph, run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def store(model_store: Path) -> Any:
    BentoMLContainer.model_store.set(ModelStore(model_store / "models"))
    yield model_store
    BentoMLContainer.model_store.reset()


def duet_generate(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["generate", *map(str, arguments)])
    assert not result.exception or isinstance(result.exception, SystemExit), result.exception
    return result


def provenance(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return facts


def test_png_folders_are_a_data_set(tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    assert duet_generate("--model", "digits-gan", "--count", 200, "--out", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [str(i) for i in range(10)]
    assert {len(list((out / str(i)).iterdir())) for i in range(10)} == {20}
    facts = provenance(out)
    assert (facts["count"], facts["finished"], facts["seed"]) == (200, 200, 0)
    assert facts["histogram"] == {str(i): 20 for i in range(10)}
    assert facts["model"].startswith("digits-gan:")
    assert facts["model"].endswith(facts["digest"][:12])
    (out / "provenance.json").unlink()
    data = load(f"folder:{out}", image_size=28)
    assert data.class_names == tuple(str(i) for i in range(10))


def test_sample_i_is_the_one_of_that_seed_and_class(tmp_path: Path) -> None:
    histogram = "7=3,2=2"
    arguments = ["--model", "digits-gan", "--histogram", histogram, "--seed", 5, "--format", "npz", "--out", tmp_path]
    assert duet_generate(*arguments).exit_code == 0
    with np.load(tmp_path / "samples-00000.npz") as kept:
        images, labels = kept["images"], kept["labels"]
    assert labels.tolist() == [7, 7, 7, 2, 2]
    digest = provenance(tmp_path)["digest"]
    graph = next(Path(BentoMLContainer.model_store.get().get(f"digits-gan:{digest[:12]}").path).glob("decode.onnx"))
    for i in range(5):
        alone = run(open_graph(graph), {"latents": latents(5, [i], 32), "labels": labels[i : i + 1]})
        assert np.array_equal(images[i], alone["images"][0])


def test_an_interrupted_run_goes_on_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SHARD", 10)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["--model", "digits-gan", "--count", 35, "--format", "npz", "--seed", 3]
    assert duet_generate(*common, "--out", whole).exit_code == 0
    write, calls = command._write_npz, iter(range(10))

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(command, "_write_npz", interrupted)
    first = duet_generate(*common, "--out", parts)
    assert first.exit_code == 130
    assert "the same command goes on" in first.stderr
    assert provenance(parts)["finished"] == 20
    assert duet_generate(*common, "--out", parts).exit_code == 0
    assert provenance(parts) == provenance(whole)
    names = sorted(path.name for path in whole.glob("*.npz"))
    assert len(names) == 4
    for name in names:
        with np.load(whole / name) as one, np.load(parts / name) as other:
            assert np.array_equal(one["images"], other["images"])
            assert np.array_equal(one["labels"], other["labels"])


def test_an_unconditional_generator_writes_without_labels(tmp_path: Path) -> None:
    assert duet_generate("--model", "digits-vae", "--count", 3, "--out", tmp_path / "drawn").exit_code == 0
    with Image.open(tmp_path / "drawn" / "00000002.png") as image:
        assert image.size == (28, 28)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "digits-cnn"], "draws no images"),
        (["--model", "nobody"], "nobody"),
        (["--model", "digits-gan", "--histogram", "x=3"], "CLASS=COUNT"),
        (["--model", "digits-gan", "--histogram", "3=x"], "CLASS=COUNT"),
        (["--model", "digits-gan", "--histogram", "3=0"], "add up to 0"),
        (["--model", "digits-vae", "--histogram", "3=1"], "does not draw by class"),
        (["--model", "digits-gan", "--truncation", "0"], "above 0"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = duet_generate(*arguments, "--out", tmp_path / "drawn")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "drawn").exists()


def test_other_files_and_other_samples_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    result = duet_generate("--model", "digits-gan", "--count", 2, "--out", tmp_path)
    assert result.exit_code == 1
    assert "the folder has other files" in result.stderr
    out = tmp_path / "drawn"
    assert duet_generate("--model", "digits-gan", "--count", 2, "--out", out).exit_code == 0
    result = duet_generate("--model", "digits-gan", "--count", 2, "--seed", 1, "--out", out)
    assert result.exit_code == 1
    assert "seed 0" in result.stderr
