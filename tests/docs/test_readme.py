"""README is short, and leads to the page that answers each question of a newcomer."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS, README, ROOT, rows, section

TEXT = README.read_text()
LINK = re.compile(r"\]\(([^)#]+)")


def test_readme_is_at_most_180_lines_long() -> None:
    assert len(TEXT.splitlines()) <= 180


def test_readme_and_overview_answer_the_same_ten_questions() -> None:
    questions = {row[0]: LINK.findall(row[1]) for row in rows(section(TEXT, "Where to go next"))}
    overview = {row[0]: LINK.findall(row[1]) for row in rows(section((DOCS / "index.md").read_text(), "Begin here"))}
    assert len(questions) == 10
    assert list(questions) == list(overview)
    first, *others = questions
    for question in others:
        pages = {(ROOT / link).resolve() for link in questions[question]}
        assert pages == {(DOCS / link).resolve() for link in overview[question]}, question
    assert [ROOT / link for link in questions[first]] == [DOCS / "index.md"]


def test_the_table_at_a_glance_fits_a_screen() -> None:
    assert len(rows(section(TEXT, "At a glance"))) <= 6
