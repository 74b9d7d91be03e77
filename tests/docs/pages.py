"""The pages of the documentation, and what stands in them: sections, tables, fenced blocks, inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
REFERENCE = DOCS / "reference"
PAGES = [README, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"))]
PAGES += sorted(DOCS.rglob("*.md"))
GUIDES = [README, *sorted((DOCS / "tutorials").glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]

FENCE = re.compile(r"^(?:<!-- needs: (?P<needs>\w+) -->\n)?```(?P<language>\S*)\n(?P<body>.*?)^```$", re.M | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")


class Fence(NamedTuple):
    """A fenced block; `needs` is what the comment before it says, "" without one."""

    needs: str
    language: str
    body: str


def name(page: Path) -> str:
    """A page's path from the root, for test ids and messages."""
    return str(page.relative_to(ROOT))


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, headers left out."""
    lines = text.splitlines()
    body = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not line.startswith("| ---") and not following.startswith("| ---")
    ]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body]


def fences(text: str) -> list[Fence]:
    return [Fence(found["needs"] or "", found["language"], found["body"]) for found in FENCE.finditer(text)]


def indented(text: str) -> list[str]:
    """The lines of indented blocks."""
    lines = FENCE.sub("", text).splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


def prose(text: str) -> str:
    """A page without its fenced and indented blocks."""
    return re.sub(r"^    .*$", "", FENCE.sub("", text), flags=re.M)


def commands(fence: Fence) -> list[str]:
    """What is typed in a `console` block."""
    return [line.removeprefix("$ ") for line in fence.body.splitlines() if line.startswith("$ ")]


def lines_of_code(text: str) -> Iterator[str]:
    """Every line that may be a command: of blocks, and inline code."""
    for fence in fences(text):
        yield from commands(fence) if fence.language == "console" else fence.body.splitlines()
    yield from indented(text)
    yield from (code.replace("\n", " ") for code in INLINE.findall(prose(text)))
