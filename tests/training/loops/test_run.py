import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from training.loops.run import RunError, open_run

CONFIG = {"digest": "aa", "seed": 0, "network": {"channels": (32, 64)}}


def test_a_new_run_writes_its_config_and_versions(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    written = json.loads((tmp_path / "cnn" / "config.json").read_text())
    assert written["config"] == {"digest": "aa", "seed": 0, "network": {"channels": [32, 64]}}
    assert written["versions"]["torch"] == version("torch")
    assert run.pictures.is_dir()
    assert run.load() is None


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_another_config_is_refused(tmp_path: Path, resume: bool) -> None:
    open_run(tmp_path, "cnn", CONFIG, resume=False)
    with pytest.raises(
        RunError, match=r"config\.json.*digest 'aa', but the command gives 'bb'.*another output directory"
    ):
        open_run(tmp_path, "cnn", CONFIG | {"digest": "bb"}, resume=resume)


def test_checkpoints_come_back_and_a_new_start_leaves_them(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    run.save({"epoch": 3, "state": {"weight": torch.arange(4.0)}})
    again = open_run(tmp_path, "cnn", CONFIG, resume=True).load()
    assert again is not None
    assert again["epoch"] == 3
    assert torch.equal(again["state"]["weight"], torch.arange(4.0))
    assert [path.name for path in (tmp_path / "cnn").glob("*.tmp")] == []
    with pytest.raises(
        RunError, match=rf"{run.checkpoint}: an earlier run .*--resume .*--out .*delete {run.directory}"
    ):
        open_run(tmp_path, "cnn", CONFIG, resume=False)
    kept = run.load()
    assert kept is not None
    assert kept["epoch"] == 3
    run.checkpoint.unlink()
    assert open_run(tmp_path, "cnn", CONFIG, resume=False).load() is None


def test_a_checkpoint_of_a_part_is_left_too(tmp_path: Path) -> None:
    scorer = open_run(tmp_path, "scorer", CONFIG, resume=False)
    open_run(scorer.directory, "vae", CONFIG, resume=False).save({"epoch": 1})
    with pytest.raises(RunError, match=r"scorer/vae/checkpoint\.pt: an earlier run"):
        open_run(tmp_path, "scorer", CONFIG, resume=False)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    run.save({"epoch": 3})
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:100])
    with pytest.raises(RunError, match=r"checkpoint\.pt: not readable.*delete it"):
        run.load()


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    run.save({"epoch": 3})
    with pytest.raises(Exception, match="pickle"):
        run.save({"epoch": 4, "unpicklable": lambda: None})
    checkpoint = run.load()
    assert checkpoint is not None
    assert checkpoint["epoch"] == 3


def test_records_later_than_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    for epoch in range(4):
        run.log({"epoch": epoch})
    run.forget_from(2)
    assert [record["epoch"] for record in run.records()] == [0, 1]


def test_notes_add_up_and_a_new_start_forgets_them(tmp_path: Path) -> None:
    run = open_run(tmp_path, "cnn", CONFIG, resume=False)
    assert run.notes() == {}
    run.note(arithmetic="float32", cpu_minutes=1.5)
    run.note(cpu_minutes=2.0)
    assert open_run(tmp_path, "cnn", CONFIG, resume=True).notes() == {"arithmetic": "float32", "cpu_minutes": 2.0}
    assert open_run(tmp_path, "cnn", CONFIG, resume=False).notes() == {}
