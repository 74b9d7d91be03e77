"""What each route refuses of its own fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tests.contract.bad_requests.case import GOOD, IMAGE, ITEMS, Case, form, raw


def classify_cases() -> Iterator[Case]:
    for name, value in (("0", 0), ("-1", -1), ("text", "3"), ("fraction", 1.5), ("null", None), ("boolean", True)):
        yield raw(f"top_k {name}", 422, "top_k", json.dumps(GOOD["/classify"] | {"top_k": value}))
    yield raw("a generator's model", 404, "model", json.dumps(GOOD["/classify"] | {"model": "digits-vae"}))


def generate_cases() -> Iterator[Case]:
    def given(name: str, status: int, field: str, **fields: object) -> Case:
        return raw(f"{field} {name}", status, field, json.dumps({"model": "digits-vae"} | fields))

    for name, status, count in (
        ("negative", 422, -1),
        ("0", 422, 0),
        ("as text", 422, "4"),
        ("as words", 422, "four"),
        ("fraction", 422, 1.5),
        ("boolean", 422, True),
        ("null", 422, None),
        ("list", 422, [4]),
        ("one too many", 413, ITEMS + 1),
        ("10^9", 413, 10**9),
        ("10^400", 413, 10**400),
    ):
        yield given(name, status, "count", count=count)
    yield raw("count NaN", 422, "count", b'{"count": NaN}')
    yield raw("count 1e999", 422, "count", b'{"count": 1e999}')
    for name, seed in (("negative", -1), ("2^63", 2**63), ("10^400", 10**400), ("text", "one"), ("fraction", 0.5)):
        yield given(name, 422, "seed", seed=seed)
    for name, truncation in (
        ("0", 0),
        ("negative", -1),
        ("3", 3),
        ("NaN", float("nan")),
        ("10^400", 10**400),
        ("text", "1"),
    ):
        yield given(name, 422, "truncation", truncation=truncation)
    for name, label in (("of a model that has none", "3"), ("list", ["3"]), ("boolean", True), ("fraction", 1.5)):
        yield given(name, 422, "class", **{"class": label})
    for name, unknown in (
        ("unknown", "cat"),
        ("out of range", 10),
        ("negative", -1),
        ("10^400", 10**400),
        ("empty", ""),
    ):
        yield given(f"{name} of a model that has some", 422, "class", **{"class": unknown, "model": "digits-gan"})
    for name, wish in (("unknown", "jpeg"), ("in capitals", "PNG"), ("null", None), ("number", 1)):
        yield given(name, 422, "format", format=wish)
    yield given("of a classifier", 404, "model", model="digits-cnn")
    yield form("form: count as words", 422, "count", ("; name=count", b"four"))
    yield form("form: count as a file", 422, "count", ('; name=count; filename="c"', b"4"))
    yield form("form: count twice, the last is wrong", 422, "count", ("; name=count", b"4"), ("; name=count", b"-4"))


def interpolate_cases() -> Iterator[Case]:
    def given(name: str, status: int, field: str | None, **fields: object) -> Case:
        return raw(name, status, field, json.dumps(fields))

    yield given("neither seeds nor images", 422, None, steps=3)
    yield given("both seeds and images", 422, None, seeds=[1, 2], images=[IMAGE, IMAGE])
    yield given("one image", 422, "images", images=[IMAGE])
    yield given("three images", 422, "images", images=[IMAGE] * 3)
    for name, seeds in (("one", [1]), ("three", [1, 2, 3]), ("none", []), ("a number", 1), ("text", "12")):
        yield given(f"seeds: {name}", 422, "seeds", seeds=seeds)
    for name, seed in (("negative", -1), ("2^63", 2**63), ("text", "two"), ("fraction", 1.5), ("null", None)):
        yield given(f"second seed {name}", 422, "seeds[1]", seeds=[1, seed])
    for name, status, steps in (("1", 422, 1), ("text", 422, "8"), ("too many", 413, ITEMS + 1), ("10^9", 413, 10**9)):
        yield given(f"steps {name}", status, "steps", seeds=[1, 2], steps=steps)
    yield given("path unknown", 422, "path", seeds=[1, 2], path="scenic")
    yield given("class of a model that has none", 422, "class", seeds=[1, 2], model="digits-vae", **{"class": 1})
    yield given("images for a model without encoder", 404, "model", images=[IMAGE, IMAGE], model="digits-gan")


def reconstruct_cases() -> Iterator[Case]:
    yield raw("format unknown", 422, "format", json.dumps(GOOD["/reconstruct"] | {"format": "bmp"}))
    yield raw("a model without encoder", 404, "model", json.dumps(GOOD["/reconstruct"] | {"model": "digits-gan"}))


def score_cases() -> Iterator[Case]:
    for name, alpha in (
        ("0", 0),
        ("1", 1),
        ("negative", -0.1),
        ("NaN", float("nan")),
        ("text", "0.05"),
        ("null", None),
    ):
        yield raw(f"alpha {name}", 422, "alpha", json.dumps(GOOD["/score"] | {"alpha": alpha}))
    yield raw("alpha 1e999", 422, "alpha", json.dumps(GOOD["/score"])[:-1] + ', "alpha": 1e999}')
    yield raw("alpha as words", 422, "alpha", json.dumps(GOOD["/score"] | {"alpha": "x"}))
    for field in ("heatmap", "regions", "statistics", "look_alike", "per_class"):
        for name, wish in (("text", "yes"), ("number", 1), ("null", None)):
            yield raw(f"{field} {name}", 422, field, json.dumps(GOOD["/score"] | {field: wish}))
    for name, policy in (
        ("unknown", "strict"),
        ("in capitals", "FDR"),
        ("null", None),
        ("number", 1),
        ("list", ["fdr"]),
    ):
        yield raw(f"policy {name}", 422, "policy", json.dumps(GOOD["/score"] | {"policy": policy}))
    for name, fields in (("of one image", {}), ("of one image, and where", {"heatmap": True})):
        most_unusual = GOOD["/score"] | {"policy": "top-fraction"} | fields
        yield raw(f"the most unusual {name}", 422, "policy", json.dumps(most_unusual))
    by_class = {"policy": "top-fraction", "per_class": True}
    yield raw("the most unusual by p-values", 422, "per_class", json.dumps(GOOD["/score"] | by_class))
    yield form(
        "form: policy unknown", 422, "policy", ("; name=images", json.dumps(IMAGE).encode()), ("; name=policy", b"x")
    )
    yield raw("a classifier's model", 404, "model", json.dumps(GOOD["/score"] | {"model": "digits-cnn"}))


OWN: dict[str, Callable[[], Iterator[Case]]] = {
    "/classify": classify_cases,
    "/generate": generate_cases,
    "/interpolate": interpolate_cases,
    "/reconstruct": reconstruct_cases,
    "/score": score_cases,
}
