"""Every figure that README and docs/results/index.md quote is in the results file that its row names.

A row of a table `## At a glance` ends with a link `[name](FILE "PLACE")`. PLACE lists the keys of the JSON file down to
the value, separated by ` > `: a number is an index, `*` means the mean over all. `A / B` is the ratio of two places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
INDEX = RESULTS / "index.md"

LINK = re.compile(r'\]\((?P<file>[^)\s]+) "(?P<place>[^"]+)"\)')
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
MEASURED = re.compile(rf"(?:{NUMBER.pattern})\s*(?:%|ms\b|µs\b|MB\b|KB\b|nats\b|times\b|images/s|images a second)")
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
# Pages that are written by hand, with a results file of the same name.
BY_HAND = ["anomaly", "classic", "classification", "conditional_vae", "demo", "generation", "install_size"]


class Row(NamedTuple):
    """One row of a table `## At a glance`; `file` is absolute."""

    what: str
    figure: str
    file: Path
    place: str


def glance(text: str) -> str:
    """The section `## At a glance` of a page."""
    return text.split("\n## At a glance\n")[1].split("\n## ", maxsplit=1)[0]


def body(text: str) -> Iterator[str]:
    """The rows of all tables in a text, headers left out."""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not line.startswith("| ---") and not following.startswith("| ---"):
            yield line


def rows(text: str, folder: Path) -> list[Row]:
    """The rows of a page's table; a row that names no results file is an error."""
    found = []
    for line in body(glance(text)):
        link = LINK.search(line)
        assert link, f"no results file: {line}"
        what, figure = (cell.strip() for cell in line.strip("|").split(" | ")[:2])
        found.append(Row(what, figure, (folder / link["file"]).resolve(), link["place"]))
    return found


def held(document: Any, place: str) -> float:
    """The value at a place of a results file."""
    if " / " in place:
        above, below = place.split(" / ")
        return held(document, above) / held(document, below)
    key, _, rest = place.partition(" > ")
    if key == "*":
        return fmean(held(each, rest) for each in document)
    value = document[int(key)] if isinstance(document, list) else document[key]
    return held(value, rest) if rest else float(value)


def quoted(figure: str, value: float) -> bool:
    """Whether a figure such as `99.69 %` is the value, rounded to as many digits."""
    number = NUMBER.match(figure)
    assert number, f"no number: {figure}"
    digits = len(number[0].partition(".")[2])
    scale = 100 if "%" in figure else 1
    return f"{scale * value:.{digits}f}" == number[0].replace(",", "")


def wrong(text: str, folder: Path) -> list[str]:
    """The rows whose figure is not in their results file."""
    problems = []
    for row in rows(text, folder):
        value = held(json.loads(row.file.read_text()), row.place)
        if not quoted(row.figure, value):
            problems.append(f"{row.what}: {row.figure}, but {row.file.name} has {value} at {row.place}")
    return problems


def unsupported(text: str) -> list[str]:
    """Measured figures of a page, outside code and the table, that the table does not have."""
    table = glance(text)
    allowed = {figure.split(" | ")[1].strip() for figure in body(table)}
    prose = CODE.sub("", text.replace(table, ""))
    return [match[0] for match in MEASURED.finditer(prose) if match[0] not in allowed]


@pytest.mark.parametrize("page", [README, INDEX], ids=["README", "index"])
def test_every_figure_is_in_its_results_file(page: Path) -> None:
    assert wrong(page.read_text(), page.parent) == []


def test_readme_quotes_no_figure_outside_its_table() -> None:
    assert unsupported(README.read_text()) == []


def test_readme_has_a_few_rows_of_the_index() -> None:
    few, all_rows = rows(README.read_text(), ROOT), rows(INDEX.read_text(), RESULTS)
    assert len(few) <= 6
    assert len(all_rows) <= 20
    assert [row for row in few if row not in all_rows] == []


@pytest.mark.parametrize(
    ("figure", "other"), [("99.69 %", "99.70 %"), ("4,518", "4,618"), ("7.0 times", "7.1 times"), ("146 MB", "164 MB")]
)
def test_another_figure_is_noticed(figure: str, other: str) -> None:
    text = README.read_text()
    assert f"| {figure} |" in text
    assert len(wrong(text.replace(f"| {figure} |", f"| {other} |"), ROOT)) == 1


@pytest.mark.parametrize("figure", ["99.70 %", "12 ms", "9,000 images a second", "9,000 images/s", "200 MB", "7 times"])
def test_a_figure_in_prose_is_noticed(figure: str) -> None:
    assert unsupported(f"{README.read_text()}\nMeasured: {figure}.\n") == [figure]


def test_code_and_figures_of_the_table_are_no_problem() -> None:
    text = README.read_text() + "\nThe accuracy is 99.69 %, see `alpha 5 %`.\n\n```\n77 %\n```\n\n    88 %\n"
    assert unsupported(text) == []


def test_places_are_keys_indices_means_and_ratios() -> None:
    document = {"a": [{"b": 1.0}, {"b": 3.0}], "c/0.5": 4}
    places = {"a > 1 > b": 3.0, "a > * > b": 2.0, "c/0.5": 4.0, "a > 1 > b / c/0.5": 0.75}
    assert {place: held(document, place) for place in places} == places


def test_a_measured_row_is_on_one_page() -> None:
    pages: dict[str, list[str]] = {}
    for page in sorted(RESULTS.glob("*.md")):
        for line in body(page.read_text()):
            if len(NUMBER.findall(line)) > 1 and page != INDEX:
                pages.setdefault(line, []).append(page.name)
    assert {line: names for line, names in pages.items() if len(set(names)) > 1} == {}


def numbers(value: Any) -> Iterator[float]:
    """The numbers in a JSON document, at any depth."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield value


def absent(document: Any, page: str) -> list[float]:
    """The numbers of a results file that its page has neither as they are nor in %."""
    shown = {float(number.replace(",", "")) for number in NUMBER.findall(page)}
    return [each for each in numbers(document) if not {round(each, 9), round(100 * each, 9)} & shown]


@pytest.mark.parametrize("name", BY_HAND)
def test_a_page_has_the_figures_of_its_results_file(name: str) -> None:
    document = json.loads((RESULTS / f"{name}.json").read_text())
    if name == "anomaly":  # these are on the pages that `duet evaluate` writes; the next test compares them
        del document["kinds"]["mean_auroc"]
    assert absent(document, (RESULTS / f"{name}.md").read_text()) == []


def test_a_figure_that_a_page_lacks_is_noticed() -> None:
    assert absent({"a": [0.9969, 3.7], "b": 0.98}, "| 99.69 % | 3.7 |") == [0.98]


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist"])
def test_the_mean_over_all_anomalies_is_that_of_the_page(data: str) -> None:
    mean = json.loads((RESULTS / "anomaly.json").read_text())["kinds"]["mean_auroc"][data]
    page = (RESULTS / f"anomaly_{data.replace('-', '_')}.md").read_text()
    assert f"| mean |  | {mean:.4f} |" in page
