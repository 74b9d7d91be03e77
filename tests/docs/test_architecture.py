"""ARCHITECTURE.md names what there is."""

from __future__ import annotations

from tests.docs.pages import ROOT


def test_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists()]
    assert [folder for folder in folders if f"{folder}/" not in text] == []
