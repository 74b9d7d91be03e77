"""How Sphinx builds these pages into a site that works from a folder, without a network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "Duet"
author = "The authors of Duet"
extensions = ["myst_parser"]
exclude_patterns = ["pictures/*.md"]
templates_path: list[str] = []

myst_enable_extensions = ["html_image"]  # pictures with a width
smartquotes = False  # `--` stays two hyphens
myst_heading_anchors = 3  # links such as page.md#heading, as forges make them

html_theme = "furo"
html_title = "Duet"
html_static_path = ["static"]
html_css_files = ["wrap.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # a summary is fetched, and browsers fetch nothing from file://

# Documents that stand in the root of the repository, where forges look for them, and the pages that show them.
SHOWN = {
    "explanation/architecture": "ARCHITECTURE.md",
    "how-to/contribute": "CONTRIBUTING.md",
    "reference/changelog": "CHANGELOG.md",
}
LINK = re.compile(r"(\]\()([^)#:]+)(#[^)]*)?\)")


def show(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace a page of SHOWN by its document, under the page's title, with links that start from the page's folder."""
    if page not in SHOWN:
        return
    pages = {document: f"docs/{shown}.md" for shown, document in SHOWN.items()} | {"README.md": "docs/index.md"}
    folder = Path("docs", page).parent

    def moved(link: re.Match[str]) -> str:
        target = os.path.relpath(pages.get(link[2], link[2]), folder)
        return f"{link[1]}{target}{link[3] or ''})"

    title, (_, text) = source[0].partition("\n")[0], (ROOT / SHOWN[page]).read_text().split("\n", maxsplit=1)
    source[0] = f"{title}\n{LINK.sub(moved, text)}"
    app.env.note_dependency(str(ROOT / SHOWN[page]))


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", show)
