"""The site: it builds without a warning, needs no network, and its search answers a newcomer's questions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from sphinx.search.en import SearchEnglish

from tests.conftest import clean_environment
from tests.docs.pages import DOCS

pytestmark = pytest.mark.slow

# What somebody types for each of the ten questions in README, and the page that answers it.
SEARCHES = {
    "what is duet": "index",
    "first steps": "tutorials/first-steps",
    "send image": "how-to/send-images",
    "own images": "tutorials/own-images",
    "deploy kubernetes": "how-to/deploy",
    "memory": "results/install_size",
    "accuracy": "results/classification",
    "p-value": "explanation/p-values",
    "settings": "reference/settings",
    "change duet": "how-to/contribute",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-d", str(out / "doctrees")]
    run = subprocess.run(
        [*command, str(DOCS), str(out / "html")], env=clean_environment(), check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return out / "html"


class Assets(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        links = [values.get("src"), values.get("srcset"), values.get("href") if tag == "link" else None]
        self.loaded += [link for link in links if link]


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        parser = Assets()
        parser.feed(page.read_text())
        assert [link for link in parser.loaded if "//" in link] == [], page
        local = [link.partition("?")[0].partition("#")[0] for link in parser.loaded if not link.startswith("data:")]
        assert [link for link in local if not (page.parent / link).exists()] == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()) == [], sheet


def found_by_index(site: Path, query: str) -> set[str]:
    """The pages that have every word of a query, looked up as the search page's script does."""
    text = (site / "searchindex.js").read_text()
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    english = SearchEnglish({})
    found = set(range(len(index["docnames"])))
    for word in english.split(query.lower()):
        if not english.word_filter(word):
            continue
        numbers: set[int] = set()
        for terms in (index["terms"], index["titleterms"]):
            entry = terms.get(english.stem(word), [])
            numbers |= set(entry if isinstance(entry, list) else [entry])
        found &= numbers
    return {index["docnames"][number] for number in found}


@pytest.mark.parametrize("query", SEARCHES)
def test_the_index_finds_the_page(site: Path, query: str) -> None:
    assert SEARCHES[query] in found_by_index(site, query)


def test_search_works_in_a_browser_without_a_server(site: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    for query, page in SEARCHES.items():
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom"]
        address = f"{(site / 'search.html').as_uri()}?q={quote_plus(query)}"
        run = subprocess.run([chromium, *options, address], check=True, capture_output=True, text=True)
        results = run.stdout.partition('id="search-results"')[2]
        assert f'href="{page}.html' in results, query
