"""The setting `DUET_DEFAULT_MODELS`, read."""

from pathlib import Path

from services.default_models import parse
from services.inference.registry import Entry


def entry(name: str, version: str, task: str = "classification") -> Entry:
    return Entry(name, version, task, Path())


def test_the_first_version_of_a_name_counts_and_latest_is_none() -> None:
    found = parse(" a:1, b ,a:2,c:latest,")
    assert list(found.names) == ["a", "b", "a", "c"]
    assert found.versions == {"a": "1"}
    assert [found.means(each) for each in (entry("a", "1"), entry("a", "2"), entry("c", "9"))] == [True, False, True]


def test_a_version_that_is_not_selected_is_told_with_those_that_are() -> None:
    found = parse("a:1,b:1,gone:1").not_selected([entry("a", "1"), entry("b", "2"), entry("b", "3")])
    assert list(found) == ["b:1"]
    assert found["b:1"].endswith("add it to DUET_MODELS, or name one of b:2, b:3")


def test_without_a_preferred_model_every_model_of_the_task_is_one() -> None:
    served = [entry("a", "1"), entry("b", "1"), entry("g", "1", "generation")]
    assert parse("").of_task("classification", served) == {"a", "b"}
    assert parse("b,g").of_task("classification", served) == {"b"}
    assert parse("g").of_task("classification", served) == {"a", "b"}
