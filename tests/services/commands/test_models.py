"""`duet models` on a store of its own: what it prints, and with which exit status it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.commands.models import app
from services.inference import registry
from services.inference.bundle import Bundle, Gate

MakeBundle = Callable[..., Bundle]

pytestmark = pytest.mark.usefixtures("empty_store")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def duet_models(*arguments: str | Path, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_an_empty_store_says_how_to_fill_it() -> None:
    result = duet_models("list")
    assert result.exit_code == 0
    assert "duet train --dataset digits --recipe demo" in result.stdout


def test_list_shows_every_bundle_and_which_one_is_damaged(make_bundle: MakeBundle) -> None:
    good, bad = registry.store(make_bundle("good")), registry.store(make_bundle("bad", weight=2))
    (bad.path / "card.md").unlink()
    result = duet_models("list")
    assert result.exit_code == 0
    [good_line] = [line for line in result.stdout.splitlines() if good.version in line]
    [bad_line] = [line for line in result.stdout.splitlines() if bad.version in line]
    assert "classification" in good_line
    assert "by hand" in good_line
    assert "does not verify" in bad_line


def test_show_tells_digest_metrics_gates_and_parity(make_bundle: MakeBundle) -> None:
    gate = Gate(metric="accuracy", value=0.5, bound=0.25, direction="at least")
    bundle = make_bundle(gates=(gate,))
    entry = registry.store(bundle)
    result = duet_models("show", "tiny-linear")
    assert result.exit_code == 0
    for text in (bundle.digest, entry.tag, "1 x 2 x 2", "at least 0.25, is 0.5 on test", "1e-07", str(entry.path)):
        assert text in result.stdout


def test_brackets_in_names_are_printed_as_they_are(make_bundle: MakeBundle) -> None:
    registry.store(make_bundle(recipe="[bold]odd[/]", metrics={"[/]": 1.0}))
    assert "[bold]odd[/]" in duet_models("list").stdout
    shown = duet_models("show", "tiny-linear").stdout
    assert "recipe    [bold]odd[/]" in shown
    assert " [/] " in shown


def test_show_of_a_name_takes_the_newest_and_of_a_tag_that_one(make_bundle: MakeBundle) -> None:
    old, new = registry.store(make_bundle("old")), registry.store(make_bundle("new", weight=2))
    assert new.tag in duet_models("show", "tiny-linear").stdout
    assert old.tag in duet_models("show", old.tag).stdout


@pytest.mark.parametrize("command", ["show", "verify", "delete"])
@pytest.mark.parametrize("model", ["other", "tiny-linear:000000000000", "[/odd]", "[bold]odd"])
def test_an_unknown_model_is_an_error_that_lists_those_there_are(
    make_bundle: MakeBundle, command: str, model: str
) -> None:
    entry = registry.store(make_bundle())
    result = duet_models(command, model)
    assert result.exit_code == 1
    assert f"error: model '{model}' is not in the store; it holds {entry.tag}" in result.stderr


def test_verify_passes_over_sound_bundles(make_bundle: MakeBundle) -> None:
    entries = [registry.store(make_bundle("one")), registry.store(make_bundle("two", weight=2))]
    result = duet_models("verify")
    assert result.exit_code == 0
    assert all(f"ok      {entry.tag}, 2 files" in result.stdout for entry in entries)


def test_verify_names_what_is_damaged_and_ends_with_1(make_bundle: MakeBundle) -> None:
    good, bad = registry.store(make_bundle("good")), registry.store(make_bundle("bad", weight=2))
    (bad.path / "classify.onnx").write_bytes(b"")
    result = duet_models("verify")
    assert result.exit_code == 1
    assert f"ok      {good.tag}" in result.stdout
    assert f"FAILED  {bad.tag}: {bad.path}/classify.onnx: SHA-256" in result.stdout
    assert duet_models("verify", good.tag).exit_code == 0
    assert duet_models("verify", bad.tag).exit_code == 1


def test_verify_notices_a_sound_bundle_in_the_place_of_another(make_bundle: MakeBundle) -> None:
    entry = registry.store(make_bundle("one"))
    other = make_bundle("two", weight=2)
    for name in ("manifest.json", *other.manifest.files):
        (entry.path / name).write_bytes((other.path / name).read_bytes())
    result = duet_models("verify", entry.tag)
    assert result.exit_code == 1
    assert f"holds version {other.version}, not {entry.version}" in result.stdout


def test_verify_of_an_empty_store_is_an_error() -> None:
    result = duet_models("verify")
    assert result.exit_code == 1
    assert "there is nothing to verify" in result.stderr


@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_half_written_store_is_an_error_not_a_traceback(make_bundle: MakeBundle, command: str) -> None:
    (registry.store(make_bundle()).path / "model.yaml").unlink()
    result = duet_models(command)
    assert result.exit_code == 1
    assert "remove the folder that an interrupted write left there" in result.stderr


def test_export_and_import_move_a_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    entry = registry.store(make_bundle())
    exported = duet_models("export", "tiny-linear", tmp_path / "tiny.tar.gz")
    assert exported.exit_code == 0
    assert f"wrote {tmp_path / 'tiny.tar.gz'}" in exported.stdout
    assert duet_models("delete", entry.tag, "--yes").stdout == f"deleted {entry.tag}\n"
    assert duet_models("import", tmp_path / "tiny.tar.gz").stdout == f"stored {entry.tag}\n"
    assert registry.entries()[0].tag == entry.tag


def test_an_export_is_named_tar_gz(make_bundle: MakeBundle, tmp_path: Path) -> None:
    registry.store(make_bundle())
    result = duet_models("export", "tiny-linear", tmp_path / "tiny.zip")
    assert result.exit_code == 1
    assert "must end in .tar.gz" in result.stderr
    assert not (tmp_path / "tiny.zip").exists()


def test_an_import_that_is_damaged_is_named_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.tar.gz").write_bytes(b"damaged")
    result = duet_models("import", tmp_path / "tiny.tar.gz")
    assert result.exit_code == 1
    assert "tiny.tar.gz: not readable as a bundle archive" in result.stderr
    assert registry.entries() == []
    assert duet_models("import", tmp_path / "no such file").exit_code == 2


def test_delete_asks_first(make_bundle: MakeBundle) -> None:
    entry = registry.store(make_bundle())
    assert duet_models("delete", "tiny-linear", answer="n\n").exit_code == 1
    assert registry.entries() == [entry]
    result = duet_models("delete", "tiny-linear", answer="y\n")
    assert result.exit_code == 0
    assert f"Delete {entry.tag}?" in result.stdout
    assert registry.entries() == []


def test_delete_by_a_name_with_two_versions_names_both(make_bundle: MakeBundle) -> None:
    entries = [registry.store(make_bundle("one")), registry.store(make_bundle("two", weight=2))]
    result = duet_models("delete", "tiny-linear", "--yes")
    assert result.exit_code == 1
    assert all(entry.tag in result.stderr for entry in entries)
    assert len(registry.entries()) == 2
