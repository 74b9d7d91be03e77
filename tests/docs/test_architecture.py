"""ARCHITECTURE.md names what there is."""

from __future__ import annotations

from tests.docs.pages import ROOT, rows, section


def test_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists()]
    assert [folder for folder in folders if f"{folder}/" not in text] == []


def test_each_question_has_one_path_that_exists() -> None:
    answers = rows(section((ROOT / "ARCHITECTURE.md").read_text(), "Where is what"))
    assert len(answers) == 10
    for question, answer in answers:
        assert question.endswith("?")
        assert (ROOT / answer.strip("`")).exists(), answer
