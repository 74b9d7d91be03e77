"""Each mistake is found by its check, and each check finds a mistake; the reference page lists both."""

from __future__ import annotations

import copy

import pytest

import tests.manifests.network_mistakes  # noqa: F401  # adds to MISTAKES
from deploy.manifests.checks import CHECKS, problems
from tests.docs.pages import REFERENCE, rows, section
from tests.manifests.mistakes import MISTAKES
from tests.manifests.sites import objects

PAGE = REFERENCE / "manifests.md"


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_found_by_its_check(what: str) -> None:
    check, (target, *components), change = MISTAKES[what]
    right = objects(target, *components)
    wrong = copy.deepcopy(right)
    change(wrong)
    assert wrong != right
    assert list(CHECKS[check](right)) == []
    assert list(CHECKS[check](wrong)) != []
    assert check in problems(wrong)


def test_each_check_finds_a_mistake() -> None:
    assert {check for check, _, _ in MISTAKES.values()} == set(CHECKS)
    assert len(MISTAKES) >= 30


def test_the_page_lists_the_checks_and_the_mistakes() -> None:
    text = PAGE.read_text()
    demands = [[f"`{name}`", (check.__doc__ or "").strip().splitlines()[0]] for name, check in CHECKS.items()]
    assert rows(section(text, "Checks")) == demands
    assert rows(section(text, "Mistakes")) == [[what, f"`{check}`"] for what, (check, _, _) in MISTAKES.items()]
