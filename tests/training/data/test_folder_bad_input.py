"""What people point `duet train` at by mistake: each ends in a sentence with place and remedy, or in a model."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from training.cli import app
from training.data import load

ROOT = Path(__file__).parents[3]


def fill(folder: Path, count: int, start: int = 0) -> Path:
    """Write `count` distinct small PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        noise = np.random.default_rng(index).integers(0, 256, (9, 9), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index:05}.png")
    return folder


def pets(root: Path) -> None:
    fill(root / "cat", 20)
    fill(root / "dog", 20, start=100)


def one_class(root: Path) -> None:
    fill(root / "cat", 40)


def class_of_one_image(root: Path) -> None:
    fill(root / "cat", 40)
    fill(root / "dog", 1, start=100)


def class_without_images(root: Path) -> None:
    pets(root)
    (root / "eel").mkdir()


def three_images(root: Path) -> None:
    fill(root, 3)


def three_classes_of_one(root: Path) -> None:
    for index, name in enumerate(("cat", "dog", "eel")):
        fill(root / name, 1, start=index)


def nothing(root: Path) -> None:
    root.mkdir()


def only_text(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("no image")


def all_black(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (9 + index, 9)).save(root / name / f"{index}.png")


def corrupt_file(root: Path) -> None:
    pets(root)
    path = root / "dog" / "00107.png"
    path.write_bytes(path.read_bytes()[:60])


def text_called_png(root: Path) -> None:
    pets(root)
    (root / "cat" / "notes.png").write_text("a good cat")


def link_to_nowhere(root: Path) -> None:
    pets(root)
    (root / "cat" / "missing.png").symlink_to(root / "not-fetched.png")


def images_beside_classes(root: Path) -> None:
    pets(root)
    fill(root, 2, start=500)


def ten_thousand_classes(root: Path) -> None:
    for index in range(10_000):
        (root / f"{index:05}").mkdir(parents=True)


def many_small_classes(root: Path) -> None:
    for index in range(30):
        fill(root / f"class {index:02}", 2, start=10 * index)


def name_of_no_text(root: Path) -> None:
    pets(root)
    os.mkdir(os.fsencode(root) + b"/\xff")


def ten_thousand_classes_of_one(root: Path) -> None:
    ten_thousand_classes(root)
    for folder in root.iterdir():
        (folder / "a.png").write_bytes(b"never read")


def splits_of_another_tool(root: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        fill(root / split / "cat", 20, start=100 * start)
        fill(root / split / "dog", 20, start=100 * start + 50)


def splits_and_masks(root: Path) -> None:
    fill(root / "Train" / "good", 40)
    fill(root / "Test" / "broken", 20, start=100)
    fill(root / "ground_truth", 20, start=200)


def class_folder_that_is_gone(root: Path) -> None:
    pets(root)
    (root / "eel").symlink_to(root.parent / "unmounted")


def pipe_called_png(root: Path) -> None:
    pets(root)
    os.mkfifo(root / "cat" / "pipe.png")


def file_for_a_folder(root: Path) -> None:
    root.write_text("no folder")


def nowhere(root: Path) -> None:
    pass


@pytest.mark.parametrize(("make", "said"), [
    (one_class, ("one class, cat,", "photos/cat for data without labels")),
    (class_of_one_image, ("fewer than 10 readable images in dog (1)", "add images or remove")),
    (class_without_images, ("fewer than 10 readable images in eel (0)",)),
    (three_images, ("3 readable images, but at least 40", "add images")),
    (three_classes_of_one, ("fewer than 10 readable images in cat (1), dog (1), eel (1); add images or remove",)),
    (nothing, ("0 readable images, but at least 40",)),
    (only_text, ("0 readable images, but at least 40",)),
    (all_black, ("all 40 images have the same pixels (black)", "look at ")),
    (corrupt_file, ("dog/00107.png: not readable as PNG or JPEG", "--skip-unreadable")),
    (text_called_png, ("cat/notes.png: not readable as PNG or JPEG (its content is neither)", "repair or delete")),
    (link_to_nowhere, ("cat/missing.png: not readable", "No such file")),
    (images_beside_classes, ("2 images such as 00500.png are beside class folders (cat, dog)", "move every image")),
    (ten_thousand_classes, ("10,000 sub-folders (00000, 00001, 00002, 00003, 00004 and 9,995 more)", "at most 1,000")),
    (ten_thousand_classes_of_one, ("10,000 sub-folders (00000, 00001,", "at most 1,000 classes are allowed")),
    (many_small_classes, ("in class 00 (2), class 01 (2), class 02 (2), class 03 (2), class 04 (2) and 25 more;",)),
    (name_of_no_text, ("is not printable text; rename the folder",)),
    (splits_of_another_tool, ("the sub-folders test, train, val look like splits", "into one sub-folder")),
    (splits_and_masks, ("the sub-folders Test, Train, ground_truth look like splits",)),
    (class_folder_that_is_gone, ("photos/eel: not readable", "No such file")),
    (pipe_called_png, ("cat/pipe.png: not readable as PNG or JPEG (it is no file); repair or delete it",)),
    (file_for_a_folder, ("no such folder; give one with PNG or JPEG images",)),
    (nowhere, ("no such folder; give one with PNG or JPEG images",)),
])  # fmt: skip
def test_a_sentence_and_no_stack_trace(make: Callable[[Path], None], said: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make(root)
    command = ["train", "--dataset", f"folder:{root}", "--recipe", "demo", "--out", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --dataset folder:{root}: ")
    assert result.stderr.count(f"folder:{root}: ") == 1
    assert len(result.stderr) < 600
    for part in said:
        assert part in result.stderr
    assert not (tmp_path / "runs").exists()


def test_unreadable_files_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text_called_png(tmp_path)
    (tmp_path / "cat" / "missing.png").symlink_to(tmp_path / "not-fetched.png")
    data = load(f"folder:{tmp_path}", on_unreadable="skip")
    assert sum(data.splits.values()) == 40
    warnings = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert len(warnings) == 2
    assert all("notes.png" in warning or "missing.png" in warning for warning in warnings)


def test_an_image_in_two_classes_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets(tmp_path)
    fill(tmp_path / "dog", 3)  # three of the cats
    assert sum(load(f"folder:{tmp_path}").splits.values()) == 43
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "3 images are in two classes" in warning
    assert "cat/0000" in warning
    assert "dog/0000" in warning


def test_a_vehicle_called_train_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path / "bus", 20)
    fill(tmp_path / "train", 20, start=100)
    assert load(f"folder:{tmp_path}").class_names == ("bus", "train")


def test_folders_of_file_servers_and_systems_are_told_and_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pets(tmp_path)
    before = load(f"folder:{tmp_path}").digest
    for folder in ("@eaDir", "lost+found", "$RECYCLE.BIN", "__MACOSX", "cat/@eaDir/00001.png", "dog/#recycle"):
        fill(tmp_path / folder, 12, start=900)
    assert load(f"folder:{tmp_path}").digest == before
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == f"{tmp_path}: skipped 6 folders of a system or file server, such as $RECYCLE.BIN"


def test_class_folders_may_be_links_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "disk" / "cats", 20)
    fill(tmp_path / "disk" / "more cats", 5, start=50)
    fill(tmp_path / "pets" / "dog", 20, start=100)
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "disk" / "cats")
    (tmp_path / "disk" / "cats" / "more").symlink_to(tmp_path / "disk" / "more cats")
    data = load(f"folder:{tmp_path / 'pets'}")
    assert (data.class_names, sum(data.splits.values())) == (("cat", "dog"), 45)
    assert not caplog.records
    (tmp_path / "disk" / "cats" / "all").symlink_to(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "here").symlink_to(".")
    assert load(f"folder:{tmp_path / 'pets'}").digest == data.digest
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "skipped 2 links to folders that are read already, such as cat/all" in warning


def test_one_black_class_is_a_class(tmp_path: Path) -> None:
    all_black(tmp_path)
    fill(tmp_path / "eel", 20)
    assert load(f"folder:{tmp_path}").class_names == ("cat", "dog", "eel")


def duet(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "COLUMNS": "200"}
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)


def mixed(root: Path) -> None:
    """Bright and dark images of many sizes, modes and formats, with a text file and a hidden one among them."""
    for label, (name, centre) in enumerate([("bright", 200), ("dark", 50)]):
        (root / name).mkdir(parents=True)
        for index in range(40):
            generator = np.random.default_rng(100 * label + index)
            shape = (int(generator.integers(8, 60)), int(generator.integers(8, 60)), 3)
            image = Image.fromarray(generator.integers(centre - 40, centre + 40, shape, dtype=np.uint8))
            image.convert(("L", "RGB", "P", "RGBA")[index % 4]).save(root / name / f"{index}.png")
            if index % 5 == 0:
                image.save(root / name / f"{index}.jpg")
        (root / name / "read me.txt").write_text("thanks")
        (root / name / ".DS_Store").write_bytes(b"\0\1")


@pytest.mark.slow
def test_mixed_sizes_and_a_text_file_end_in_a_model(
    tmp_path: Path, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed(tmp_path / "photos")
    spec = f"folder:{tmp_path / 'photos'}"
    run = CliRunner().invoke(app, ["train", "--dataset", spec, "--network", "cnn", "--out", str(tmp_path / "runs")])
    assert run.exit_code == 0, run.output
    assert "stored photos-cnn:" in run.stdout
    assert "ignored 2 files that are not .png, .jpg or .jpeg" in caplog.text
    compared = CliRunner().invoke(app, ["compare", "photos-cnn", "photos-cnn", "--dataset", spec])
    assert compared.exit_code == 0, compared.output
    assert "Both are right and wrong on the same images" in compared.stdout
    unnamed = CliRunner().invoke(app, ["compare", "photos-cnn", "photos-cnn"])
    assert unnamed.exit_code == 1
    assert "photos-cnn was trained on the folder 'photos'; give it as folder:PATH" in unnamed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "quantize"])
def test_labels_that_do_not_match_the_model(command: str, model_store: Path, tmp_path: Path) -> None:
    pets(tmp_path / "photos")
    options = ("--dataset", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path / "out"))
    run = duet(command, "digits-cnn", *options, home=model_store)
    assert run.returncode == 1
    assert run.stderr.startswith("error: digits-cnn has the classes 0, 1, 2, 3")
    assert "but photos has cat, dog; give data like digits" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_the_process_itself_ends_in_a_sentence(tmp_path: Path) -> None:
    """Also with a name that the terminal cannot show."""
    name_of_no_text(tmp_path / "photos")
    run = duet("train", "--dataset", f"folder:{tmp_path / 'photos'}", home=tmp_path / "home")
    assert run.returncode == 1
    assert run.stderr.startswith("error: --dataset folder:")
    assert "Traceback" not in run.stderr
