"""Each task's model, on real bundles: what comes out, and that it does not depend on what else is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.inference.bundle import Bundle, BundleError, load
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.model import Model, load_model
from services.inference.noise import latents
from services.inference.scorer import Scorer

M = TypeVar("M")


def bundles(model_store: Path) -> list[Bundle]:
    return [load(manifest.parent) for manifest in sorted(model_store.glob("models/*/*/manifest.json"))]


@pytest.fixture(scope="module")
def models(model_store: Path) -> dict[str, Classifier | Generator | Scorer]:
    return {bundle.name: load_model(bundle, threads=1) for bundle in bundles(model_store)}


@pytest.fixture(scope="module")
def classifier(models: dict[str, Model]) -> Classifier:
    return first(models, Classifier)


@pytest.fixture(scope="module")
def vae(models: dict[str, Model]) -> Generator:
    [vae] = [model for model in models.values() if isinstance(model, Generator) and model.can_encode]
    return vae


@pytest.fixture(scope="module")
def scorer(models: dict[str, Model]) -> Scorer:
    return first(models, Scorer)


def first(models: dict[str, Model], kind: type[M]) -> M:
    return next(model for model in models.values() if isinstance(model, kind))


@pytest.fixture(scope="module")
def noise_images(classifier: Classifier) -> np.ndarray:
    shape = (24, *classifier.bundle.manifest.image.shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_every_bundle_loads_as_the_model_of_its_task(models: dict[str, Model]) -> None:
    kinds = {"classification": Classifier, "generation": Generator, "anomaly": Scorer}
    assert {model.bundle.manifest.task for model in models.values()} == set(kinds)
    assert all(type(model) is kinds[model.bundle.manifest.task] for model in models.values())


def test_every_operation_runs_on_its_example_at_any_batch_size(models: dict[str, Model]) -> None:
    for model in models.values():
        for operation in model.operations:
            example = model.example(operation)
            for size in (1, 2, 5):
                batch = {name: np.repeat(array, size, axis=0) for name, array in example.items()}
                outputs = model.run(operation, batch)
                assert outputs
                assert {len(array) for array in outputs.values()} == {size}


def test_probabilities_are_the_softmax_of_the_logits(classifier: Classifier, noise_images: np.ndarray) -> None:
    outputs = classifier.run("classify", {"images": noise_images})
    logits, probabilities = outputs["logits"].astype(np.float64), outputs["probabilities"]
    assert probabilities.shape == (len(noise_images), len(classifier.class_names))
    assert probabilities.dtype == np.float32
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_class_does_not_depend_on_the_batch(classifier: Classifier, noise_images: np.ndarray) -> None:
    together = classifier.run("classify", {"images": noise_images})["probabilities"]
    alone = [classifier.run("classify", {"images": image[None]})["probabilities"][0] for image in noise_images]
    assert np.allclose(together, alone, atol=1e-5)


def test_scores_are_conformal_p_values_and_the_map_adds_residuals(scorer: Scorer, noise_images: np.ndarray) -> None:
    plain = scorer.run("score", {"images": noise_images})
    mapped = scorer.run("score_map", {"images": noise_images})
    assert set(plain) == {"score", "p_value", "label", "class_p_value"}
    assert set(mapped) == {*plain, "residual", "statistics", "look_alike"}
    assert mapped["residual"].shape == (len(noise_images), *scorer.bundle.manifest.image.shape[1:])
    assert np.allclose(plain["score"], mapped["score"], rtol=1e-5)
    assert (plain["p_value"] >= np.float32(scorer.smallest_p_value)).all()
    assert (plain["p_value"] <= 1).all()
    assert scorer.residual_scale > 0
    # Noise is no digit: the stranger the score, the smaller the p-value.
    order = np.argsort(plain["score"])
    assert (np.diff(plain["p_value"][order]) <= 0).all()
    assert plain["p_value"].max() < 0.05


def inputs(generator: Generator, seed: int, count: int) -> dict[str, np.ndarray]:
    arrays = {"latents": latents(seed, range(count), generator.latent_size)}
    if generator.conditional:
        arrays["labels"] = np.arange(count, dtype=np.int64) % len(generator.bundle.manifest.class_names)
    return arrays


def test_a_seed_gives_the_same_bytes_in_any_batch(models: dict[str, Model]) -> None:
    for generator in (model for model in models.values() if isinstance(model, Generator)):
        many = generator.run("decode", inputs(generator, 7, 33))["images"]
        assert many.dtype == np.uint8
        assert many.shape == (33, *generator.bundle.manifest.image.shape)
        for count in (1, 2, 8, 32):
            assert np.array_equal(generator.run("decode", inputs(generator, 7, count))["images"], many[:count])
        backwards = {name: array[::-1] for name, array in inputs(generator, 7, 33).items()}
        assert np.array_equal(generator.run("decode", backwards)["images"][::-1], many)


def test_an_item_does_not_see_the_batch_that_it_came_with(tmp_path: Path, vae: Generator) -> None:
    # Real decoders differ between batch sizes by rounding at most, on some processors; this one by all it can.
    latent, image = vae.latent_size, vae.bundle.manifest.image.shape
    nodes = [
        helper.make_node("ReduceSum", ["latents"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["pixel"], to=TensorProto.UINT8),
        helper.make_node("Shape", ["latents"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "image"], ["shape"], axis=0),
        helper.make_node("Reshape", ["pixel", "one"], ["dot"]),
        helper.make_node("Expand", ["dot", "shape"], ["images"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(image, np.int64), "image"),
        numpy_helper.from_array(np.ones(4, np.int64), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "decode",
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", latent])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *image])],
        constants,
    )
    file = vae.bundle.manifest.graphs["decode"].file
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / file)
    graphs = {"decode": vae.bundle.manifest.graphs["decode"]}
    generator = Generator(Bundle(tmp_path, vae.bundle.manifest.model_copy(update={"graphs": graphs})))
    batch = np.zeros((3, latent), np.float32)
    batch[:, 0] = (1, 2, 4)
    images = generator.run("decode", {"latents": batch})["images"]
    assert images[:, 0, 0, 0].tolist() == [1, 2, 4]
    assert generator.operations == ("decode",)


def test_a_fresh_process_would_draw_the_same_bytes(vae: Generator) -> None:
    again = Generator(load(vae.bundle.path))
    assert np.array_equal(
        vae.run("decode", inputs(vae, 3, 4))["images"], again.run("decode", inputs(vae, 3, 4))["images"]
    )


def test_samples_differ_from_each_other_and_between_seeds(models: dict[str, Model]) -> None:
    for generator in (model for model in models.values() if isinstance(model, Generator)):
        drawn = [image for seed in (1, 2) for image in generator.run("decode", inputs(generator, seed, 8))["images"]]
        assert len({image.tobytes() for image in drawn}) == len(drawn)


def test_encoding_does_not_depend_on_the_batch_bit_by_bit(vae: Generator, noise_images: np.ndarray) -> None:
    together = vae.run("encode", {"images": noise_images})["mean"]
    assert together.shape == (len(noise_images), vae.latent_size)
    alone = [vae.run("encode", {"images": image[None]})["mean"][0] for image in noise_images]
    assert np.array_equal(together, alone)


def test_an_image_survives_a_walk_through_the_latents(vae: Generator) -> None:
    drawn = vae.run("decode", inputs(vae, 5, 16))["images"]
    again = vae.run("decode", {"latents": vae.run("encode", {"images": drawn})["mean"]})["images"]
    shuffled = np.roll(again, 1, axis=0)

    def error(other: np.ndarray) -> float:
        return float(((drawn.astype(np.float64) - other) ** 2).mean())

    assert error(again) < 0.5 * error(shuffled)


def test_a_generator_without_a_latent_size_is_refused(vae: Generator) -> None:
    manifest = vae.bundle.manifest.model_copy(update={"latent_size": None})
    with pytest.raises(BundleError, match="needs latent_size"):
        Generator(Bundle(vae.bundle.path, manifest))
