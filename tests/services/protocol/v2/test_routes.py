"""The V2 routes of a service, without a server around them."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput, MethodNotAllowed, NotReady, UnknownModel, UnknownRoute
from services.protocol.raw_response import RawResponse
from services.protocol.v2.routes import V2
from tests.services.protocol.bodies import unread

pytestmark = pytest.mark.asyncio(loop_scope="session")

Ask = Callable[..., Awaitable[Any]]
MODELS = ["digits-cnn", "digits-gan", "digits-scorer", "digits-vae"]


async def answer(plane: DataPlane, path: str, method: str = "GET") -> RawResponse:
    return await V2(plane, "tested").answer(method, path, {}, unread(), Call(time.monotonic() + 60))


async def told(plane: DataPlane, path: str, method: str = "GET") -> Any:
    found = await answer(plane, path, method)
    assert found.status == 200
    assert dict(found.headers)[b"content-type"] == b"application/json"
    return json.loads(found.body)


def versions(plane: DataPlane) -> dict[str, str]:
    return {served.entry.name: served.entry.version for served in plane.served}


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_names_itself_and_its_extensions(plane: DataPlane, path: str) -> None:
    metadata = await told(plane, path)
    assert metadata["name"] == "duet-tested"
    assert {"binary_tensor_data", "classification"} <= set(metadata["extensions"])


async def test_health(plane: DataPlane) -> None:
    assert await told(plane, "/v2/health/live") == {"live": True}
    assert await told(plane, "/v2/health/ready") == {"ready": True}


@pytest.mark.parametrize("model", MODELS)
async def test_a_model_is_found_with_and_without_its_version(plane: DataPlane, model: str) -> None:
    version = versions(plane)[model]
    path = f"/v2/models/{model}"
    metadata = await told(plane, path)
    assert metadata == await told(plane, f"{path}/versions/{version}")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (model, [version], "onnxruntime_onnx")
    for tensor in [*metadata["inputs"], *metadata["outputs"]]:
        assert set(tensor) == {"name", "datatype", "shape"}
    assert await told(plane, f"{path}/ready") == await told(plane, f"{path}/versions/{version}/ready")


async def test_the_index_lists_what_is_served(plane: DataPlane) -> None:
    index = await told(plane, "/v2/repository/index", "POST")
    assert {(entry["name"], entry["version"], entry["state"]) for entry in index} == {
        (name, version, "READY") for name, version in versions(plane).items()
    }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2", "GET, HEAD"),
        ("/v2/health/live", "GET, HEAD"),
        ("/v2/models/digits-cnn", "GET, HEAD"),
        ("/v2/models/digits-cnn/ready", "GET, HEAD"),
        ("/v2/models/digits-cnn/infer", "POST"),
        ("/v2/repository/index", "POST"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW" * 99])
async def test_a_route_takes_its_methods_and_names_them(plane: DataPlane, path: str, allowed: str, method: str) -> None:
    if method in allowed and not path.endswith("/infer"):
        assert (await answer(plane, path, method)).status == 200
    elif method not in allowed:
        with pytest.raises(MethodNotAllowed) as refusal:
            await answer(plane, path, method)
        assert refusal.value.allowed == allowed
        assert len(refusal.value.detail) < 150


@pytest.mark.parametrize(
    "path", ["/v2/models/nope", "/v2/models/nope/infer", "/v2/models/digits-cnn/versions/nope/infer", "/v2/models//x"]
)
async def test_an_unknown_model_is_refused_with_the_known_ones(plane: DataPlane, path: str) -> None:
    with pytest.raises(UnknownModel, match="is not served here; served are digits-cnn:"):
        await answer(plane, path, "POST")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nope",
        "/v2/models",
        "/v2/health",
        "/v2/health/live/x",
        "/v2/models/digits-cnn/nope",
        "/v2/models/digits-cnn/versions",
        "/v2/models/digits-cnn/infer/",
        "/v2/repository",
        "/v2/" + "x" * 9999,
    ],
)
async def test_an_unknown_route_is_refused(plane: DataPlane, path: str) -> None:
    with pytest.raises(UnknownRoute) as refusal:
        await answer(plane, path)
    assert len(refusal.value.detail) < 200


async def test_until_the_models_are_there_only_liveness_is_answered(empty_store: Path) -> None:
    plane = DataPlane(["classification"])
    assert await told(plane, "/v2/health/live") == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/digits-cnn", "/v2/models/digits-cnn/ready"):
        with pytest.raises(NotReady, match="being verified"):
            await answer(plane, path)
    with pytest.raises(NotReady):
        await answer(plane, "/v2/models/digits-cnn/infer", "POST")


async def test_labels_of_metrics_do_not_grow_with_paths(plane: DataPlane) -> None:
    v2 = V2(plane, "tested")  # the label is right before the first answer
    infer = {f"/v2/models/{name}/infer" for name in MODELS}
    assert {v2.label(path) for path in infer} == {"/v2/models/{model}/infer"}
    others = {v2.label(f"/v2/models/{i}/infer") for i in range(9)} | {v2.label(f"/v2/{i}") for i in range(9)}
    assert others == {"/v2/models", "/v2"}


@pytest.mark.parametrize("identity", ["7", "", "ä ☃ 𝄞", "x" * 5000])
async def test_the_id_comes_back(ask: Ask, digits: np.ndarray, identity: str) -> None:
    assert (await ask("digits-cnn", {"images": digits}, id=identity)).about["id"] == identity


async def test_an_answer_names_its_model_version_and_digest(ask: Ask, plane: DataPlane, digits: np.ndarray) -> None:
    about = (await ask("digits-cnn", {"images": digits})).about
    [served] = [served for served in plane.served if served.entry.name == "digits-cnn"]
    assert (about["model_name"], about["model_version"]) == ("digits-cnn", served.entry.version)
    assert about["parameters"] == {"digest": served.model.bundle.digest}
    assert "id" not in about


async def test_the_second_time_comes_from_the_cache(ask: Ask, digits: np.ndarray) -> None:
    images = 255 - digits
    replies = [await ask("digits-cnn", {"images": part}, cached=True) for part in (images[:4], images, images)]
    assert [reply.call.cache_status for reply in replies] == ["miss; hits=0/4", "partial; hits=4/8", "hit; hits=8/8"]
    assert np.array_equal(replies[1].outputs["probabilities"], replies[2].outputs["probabilities"])


@pytest.mark.parametrize("wish", ["gzip", "deflate"])
async def test_a_large_answer_is_compressed_on_a_plain_wish(ask: Ask, digits: np.ndarray, wish: str) -> None:
    large = {"outputs": [{"name": "residual", "parameters": {"binary_data": True}}]}
    plain = await ask("digits-scorer", {"images": digits}, **large)
    packed = await ask("digits-scorer", {"images": digits}, headers={"Accept-Encoding": wish}, **large)
    assert packed.headers["content-encoding"] == wish
    assert {"gzip": gzip.decompress, "deflate": zlib.decompress}[wish](packed.body) == plain.body
    # The length of the JSON is that before compression.
    length = "inference-header-content-length"
    assert packed.headers[length] == plain.headers[length]


@pytest.mark.parametrize("wish", ["gzip, deflate, br", "br", "identity", "gzip;q=0", "*", ""])
async def test_other_wishes_get_a_plain_answer(ask: Ask, digits: np.ndarray, wish: str) -> None:
    outputs = [{"name": "residual"}]
    reply = await ask("digits-scorer", {"images": digits}, headers={"Accept-Encoding": wish}, outputs=outputs)
    assert "content-encoding" not in reply.headers


async def test_a_small_answer_stays_plain(ask: Ask, digits: np.ndarray) -> None:
    reply = await ask("digits-scorer", {"images": digits[:1]}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ([{"name": "nope"}], "outputs[0].name"),
        ([{"name": "label"}, {"name": "x" * 9999}], "outputs[1].name"),
        ([{"name": "label"}, {"name": "label"}], "outputs[1].name"),
        ([{"name": "label", "parameters": {"classification": 3}}], "outputs[0].parameters.classification"),
    ],
)
async def test_an_output_that_cannot_be_given_is_refused(
    ask: Ask, digits: np.ndarray, outputs: list[Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await ask("digits-cnn", {"images": digits}, outputs=outputs)
    assert refusal.value.field == field
    assert len(refusal.value.detail) < 200


@pytest.mark.parametrize("name", ["nope", "", "x" * 9999])
async def test_an_unknown_input_is_refused(ask: Ask, digits: np.ndarray, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not one of images") as refusal:
        await ask("digits-cnn", {name: digits})
    assert len(refusal.value.detail) < 150
