"""A bundle is what its manifest says, byte for byte, or it does not load and the message says why."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.inference.bundle import (
    LATER,
    LATER_OF_DATA,
    MANIFEST,
    NAME,
    Bundle,
    BundleError,
    File,
    Gate,
    Manifest,
    load,
    seal,
)
from services.inference.registry import REFERENCE

MakeBundle = Callable[..., Bundle]

# The fixtures of a property only make one bundle, which every example then damages and restores.
one_bundle = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


def rewrite(bundle: Bundle, change: Callable[[dict[str, Any]], None], *, sign: bool = False) -> None:
    """Change the manifest on disk; with `sign` under a digest that fits, as somebody with bad intent would."""
    raw = json.loads((bundle.path / MANIFEST).read_text())
    change(raw)
    if sign:
        del raw["digest"]
        canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
        raw["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    (bundle.path / MANIFEST).write_text(json.dumps(raw))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))
    if not isinstance(node, dict | list):
        yield path


def test_a_sealed_bundle_loads_as_it_was_sealed(make_bundle: MakeBundle) -> None:
    sealed = make_bundle()
    assert load(sealed.path) == sealed
    assert set(sealed.manifest.files) == {"classify.onnx", "card.md"}
    assert sealed.version == sealed.digest[:12]
    assert sealed.graph_path("classify") == sealed.path / "classify.onnx"


def test_the_digest_depends_on_content_alone(make_bundle: MakeBundle) -> None:
    assert make_bundle("here").digest == make_bundle("there").digest
    assert make_bundle("other", weight=2).digest != make_bundle("renamed", name="other").digest


def test_the_digest_of_a_stored_bundle_never_changes(draft: Manifest) -> None:
    # Pinned: another canonical form would make every bundle in every store unreadable.
    assert draft.computed_digest() == "d6f064413467d34e43c8b1496f544bde23377ee3515eed0b67155f54429f47aa"


@pytest.mark.parametrize("field", LATER)
def test_a_field_younger_than_stored_bundles_counts_only_where_it_says_something(draft: Manifest, field: str) -> None:
    assert field not in json.loads(draft.model_dump_json())
    said = {
        "statistics": ("elbo", "distance"),
        "parts": {"classifier": "mnist-cnn:0123"},
        "arithmetic": "bfloat16",
    }
    fuller = draft.model_copy(update={field: said[field]})
    assert fuller.computed_digest() != draft.computed_digest()
    assert Manifest.model_validate_json(fuller.model_dump_json()) == fuller


@pytest.mark.parametrize("field", LATER_OF_DATA)
def test_a_younger_field_of_the_data_counts_only_where_it_says_something(draft: Manifest, field: str) -> None:
    assert field not in json.loads(draft.model_dump_json())["dataset"]
    said = {"images": "0" * 64, "split_digests": {"train": "1" * 64}}
    fuller = draft.model_copy(update={"dataset": draft.dataset.model_copy(update={field: said[field]})})
    assert fuller.computed_digest() != draft.computed_digest()
    assert Manifest.model_validate_json(fuller.model_dump_json()) == fuller


@pytest.mark.parametrize("stored", sorted(REFERENCE.iterdir()), ids=lambda path: path.name)
def test_a_committed_bundle_still_verifies(stored: Path) -> None:
    manifest = load(stored).manifest
    assert bool(manifest.statistics) == bool(manifest.parts) == (manifest.task == "anomaly")


def test_every_file_is_listed_wherever_it_lies(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "pictures").mkdir()
    (bundle.path / "pictures" / MANIFEST).write_text("{}")
    again = seal(bundle.path, bundle.manifest)
    assert set(again.manifest.files) == {"classify.onnx", "card.md", f"pictures/{MANIFEST}"}
    assert load(bundle.path) == again


@given(st.from_regex(NAME, fullmatch=True))
@one_bundle
def test_a_name_that_fits_is_sealed(make_bundle: MakeBundle, tmp_path: Path, name: str) -> None:
    bundle = load(tmp_path / "tiny") if (tmp_path / "tiny").exists() else make_bundle()
    assert seal(bundle.path, bundle.manifest.model_copy(update={"name": name})).name == name


@pytest.mark.parametrize(
    "name", ["", "Digits", "digits/cnn", "../digits", "-digits", "digits-", "a:b", "a\n", "a" * 64]
)
def test_a_name_that_cannot_be_a_tag_is_refused(make_bundle: MakeBundle, name: str) -> None:
    with pytest.raises(BundleError, match=f"name {re.escape(repr(name))}: use 1 to 63"):
        make_bundle(name=name)
    bundle = make_bundle("good")
    rewrite(bundle, lambda raw: raw.update(name=name), sign=True)
    with pytest.raises(BundleError, match=f"name {re.escape(repr(name))}: use 1 to 63"):
        load(bundle.path)


@pytest.mark.parametrize(("direction", "missed"), [("at least", 0.89), ("at most", 0.91), ("at least", float("nan"))])
def test_a_missed_gate_stops_the_seal_with_the_number_and_the_bound(
    make_bundle: MakeBundle, direction: Any, missed: float
) -> None:
    gate = Gate.model_construct(metric="accuracy", value=missed, bound=0.9, direction=direction)
    with pytest.raises(BundleError, match=f"gate accuracy: {missed:.6g} is not {direction} 0.9"):
        make_bundle(gates=(gate,))


def test_a_gate_says_its_split_and_the_first_stored_bundles_had_none() -> None:
    gate = Gate(metric="accuracy", value=0.9, bound=0.8, direction="at least")
    assert (gate.split, "split" in gate.model_dump()) == ("test", False)
    validated = gate.model_copy(update={"split": "validation"})
    assert Gate.model_validate_json(validated.model_dump_json()) == validated


@pytest.mark.parametrize("direction", ["at least", "at most"])
def test_a_gate_met_exactly_is_met(make_bundle: MakeBundle, direction: Any) -> None:
    bundle = make_bundle(gates=(Gate(metric="accuracy", value=0.9, bound=0.9, direction=direction),))
    assert load(bundle.path).manifest.gates[0].passed


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["metrics", "constants"])
def test_a_number_that_json_cannot_hold_is_not_sealed(make_bundle: MakeBundle, field: str, number: float) -> None:
    with pytest.raises(BundleError, match=f"loss: {number} is not a finite number"):
        make_bundle(**{field: {"loss": number}})


def test_a_graph_without_its_file_is_not_sealed(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "classify.onnx").unlink()
    with pytest.raises(BundleError, match=r"classify\.onnx: the manifest names this graph"):
        seal(bundle.path, bundle.manifest)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not found, so the folder is not a bundle"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_json_is_named(make_bundle: MakeBundle, content: bytes) -> None:
    bundle = make_bundle()
    (bundle.path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: not readable as JSON"):
        load(bundle.path)


def test_a_manifest_that_cannot_be_opened_is_named(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / MANIFEST).unlink()
    (bundle.path / MANIFEST).mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json: not readable"):
        load(bundle.path)


@pytest.mark.parametrize("content", ["[]", "null", "1", '"manifest"'])
def test_a_manifest_that_is_no_object_is_named(make_bundle: MakeBundle, content: str) -> None:
    bundle = make_bundle()
    (bundle.path / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match="not an object"):
        load(bundle.path)


@pytest.mark.parametrize("version", [2, 99, "1", None, 1.5])
def test_a_schema_that_this_version_cannot_read_asks_for_an_upgrade(make_bundle: MakeBundle, version: object) -> None:
    bundle = make_bundle()
    rewrite(bundle, lambda raw: raw.update(schema_version=version, field_of_the_future=1), sign=True)
    with pytest.raises(
        BundleError, match=rf"schema version {version!r}, but this Duet reads versions up to 1; upgrade"
    ):
        load(bundle.path)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("surprise", lambda raw: raw.update(surprise=1)),
        ("graphs.classify.surprise", lambda raw: raw["graphs"]["classify"].update(surprise=1)),
        ("files.card.md.surprise", lambda raw: raw["files"]["card.md"].update(surprise=1)),
        ("task", lambda raw: raw.pop("task")),
        ("task", lambda raw: raw.update(task="translation")),
        ("image.width", lambda raw: raw["image"].update(width="wide")),
        ("metrics.accuracy", lambda raw: raw["metrics"].update(accuracy=None)),
    ],
)
def test_a_field_that_does_not_belong_or_is_missing_or_wrong_is_named(
    make_bundle: MakeBundle, field: str, change: Callable[[dict[str, Any]], None]
) -> None:
    bundle = make_bundle()
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=rf"manifest\.json: field {re.escape(field)}: "):
        load(bundle.path)


def test_no_field_can_be_changed_after_the_seal(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    text = (bundle.path / MANIFEST).read_text()
    paths = [path for path in leaves(json.loads(text)) if path != ("schema_version",)]
    assert ("metrics", "accuracy") in paths
    assert ("files", "card.md", "sha256") in paths
    assert ("digest",) in paths

    def change(raw: Any, path: tuple[Any, ...]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        old = raw[path[-1]]
        raw[path[-1]] = old + 1 if isinstance(old, int | float) else "other" if old != "other" else "another"

    for path in paths:
        (bundle.path / MANIFEST).write_text(text)
        rewrite(bundle, lambda raw, path=path: change(raw, path))  # type: ignore[misc]
        with pytest.raises(BundleError):
            load(bundle.path)


def test_a_manifest_changed_after_export_says_so(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    rewrite(bundle, lambda raw: raw["metrics"].update(accuracy=0.99))
    with pytest.raises(BundleError, match=rf"the digest {bundle.version}… does not match the content"):
        load(bundle.path)


@pytest.mark.parametrize("file", ["classify.onnx", "card.md"])
def test_a_damaged_file_is_named_with_the_remedy(make_bundle: MakeBundle, file: str) -> None:
    bundle = make_bundle()
    content = bytearray((bundle.path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle.path / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{re.escape(file)}: SHA-256 .* instead of .*: import or export"):
        load(bundle.path)


@given(data=st.data())
@one_bundle
def test_one_flipped_bit_anywhere_never_gives_another_bundle(
    make_bundle: MakeBundle, tmp_path: Path, data: st.DataObject
) -> None:
    bundle = load(tmp_path / "tiny") if (tmp_path / "tiny").exists() else make_bundle()
    path = bundle.path / data.draw(st.sampled_from([MANIFEST, *bundle.manifest.files]))
    sound = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(sound) - 1))
    damaged = bytearray(sound)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        loaded = load(bundle.path)
    except BundleError as error:
        loaded = None
        message = str(error)
    path.write_bytes(sound)
    # A manifest may say the same in other words: 1e-5 and 1E-5 are one number.
    assert path.name in message if loaded is None else (loaded == bundle and path.name == MANIFEST)


def test_a_missing_file_is_named(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "card.md").unlink()
    with pytest.raises(BundleError, match=r"card\.md: No such file"):
        load(bundle.path)


def test_a_folder_in_the_place_of_a_file_is_named(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "card.md").unlink()
    (bundle.path / "card.md").mkdir()
    with pytest.raises(BundleError, match=r"card\.md: Is a directory"):
        load(bundle.path)


def test_a_graph_that_the_files_do_not_list_is_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    rewrite(bundle, lambda raw: raw["files"].pop("classify.onnx"), sign=True)
    with pytest.raises(BundleError, match=r"graph classify names classify\.onnx, which `files` does not list"):
        load(bundle.path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..", ".", "", "./card.md", "a//b", "a\0b"]
)
def test_a_file_name_that_leads_elsewhere_is_refused(make_bundle: MakeBundle, name: str) -> None:
    bundle = make_bundle()
    (bundle.path.parent / "secret").write_text("")
    record = File(sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", bytes=0)
    rewrite(bundle, lambda raw: raw["files"].update({name: record.model_dump()}), sign=True)
    with pytest.raises(BundleError, match=r"manifest\.json: field files\..*: .*relative path of a file in the bundle"):
        load(bundle.path)


def test_files_that_the_manifest_does_not_list_do_not_matter(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "model.yaml").write_text("BentoML's own\n")
    assert load(bundle.path) == bundle
