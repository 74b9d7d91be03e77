"""Bundles: a trained model in a folder, with everything that is needed to verify, store and serve it.

A bundle is a directory with `manifest.json` beside the files it lists: ONNX graphs, a model card, pictures.
The digest in the manifest covers every other field; with the SHA-256 of each file, that is every byte of the bundle.

Graph signatures by task (N is the dynamic batch axis; C, H, W are `manifest.image`):

| task | graph | inputs | outputs |
| --- | --- | --- | --- |
| classification | classify | images uint8 [N,C,H,W] | logits f32 [N,K], probabilities f32 [N,K] |
| | | | optional: class_activation f32 [N,K,h,w], prediction_set uint8 [N,K] |
| classification | log_joint (generative) | images uint8 [N,C,H,W] | log_joint f32 [N,K] |
| generation | decode | latents f32 [N,D] (, labels int64 [N]) | images uint8 [N,C,H,W], pixels f32 in 0..1 [N,C,H,W] |
| generation | encode (VAE) | images uint8 [N,C,H,W] | mean f32 [N,D], log_variance f32 [N,D] |
| generation | prior (conditional VAE) | noise f32 [N,D] (, labels int64 [N]) | latents f32 [N,D] |
| generation | discriminate (GAN) | images uint8 [N,C,H,W] (, labels int64 [N]) | log_ratio f32 [N] |
| anomaly | score | images uint8 [N,C,H,W] | score f32 [N], p_value f32 [N], residual f32 [N,H,W] |
| | | | optional: label int64 [N], class_p_value f32 [N], statistics f32 [N,S], look_alike uint8 [N,C,H,W] |
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # beside the manifest, if the bundle is signed; it signs the manifest and every file
BESIDE = (SIGNATURE, "model.yaml")  # not in the manifest; the second is BentoML's record of a model in the store
LATER = ("statistics", "parts", "arithmetic")  # fields that the first stored bundles do not have
LATER_OF_DATA = ("images", "split_digests")

Arithmetic = Literal["", "float32", "bfloat16"]
Task = str
TASKS: dict[Task, str] = {  # the class that serves a bundle of each task
    "classification": "services.inference.classifier:Classifier",
    "generation": "services.inference.generator:Generator",
    "anomaly": "services.inference.scorer:Scorer",
}

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
NAME_RULE = "use 1 to 63 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends"


class BundleError(Exception):
    """A bundle is missing, damaged or unusable; the message names the file and the remedy."""


def _below(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == "." or "\0" in name:
        raise ValueError(f"{name!r} is not a relative path of a file in the bundle")
    return name


def _without_empty(fields: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value or name not in later}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Record):
    """One input or output of a graph; a string in `shape` is a dynamic axis."""

    name: str
    dtype: Literal["uint8", "int64", "float32"]
    shape: tuple[int | str, ...]


class Parity(_Record):
    """The difference between PyTorch and ONNX Runtime, over all outputs and batch sizes.

    Each output has its own bound. Difference and bound are those of the element that is nearest to its bound.
    """

    batch_sizes: tuple[int, ...]
    max_abs_diff: float
    bound: float
    top1_agreement: float | None = Field(
        default=None, description="share of images with equal arg-max, classifiers only"
    )


class Graph(_Record):
    file: str
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parity: Parity


class Gate(_Record):
    """A bound that a metric had to meet for the bundle to be stored."""

    metric: str
    value: float
    bound: float
    direction: Literal["at least", "at most"]
    split: Literal["test", "validation"] = Field(
        default="test", description="whose value it is; the first stored bundles were decided on the test split"
    )

    @model_serializer(mode="wrap")
    def _as_written_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The split is left out if it is the one of before, so that the digests of stored bundles do not change."""
        fields: dict[str, Any] = written(self)
        return {name: value for name, value in fields.items() if (name, value) != ("split", "test")}

    @property
    def passed(self) -> bool:
        return self.value >= self.bound if self.direction == "at least" else self.value <= self.bound


class Data(_Record):
    """What a model was fitted on; each digest is a SHA-256 (hex). The last two are empty in older bundles."""

    name: str
    digest: str = Field(description="of the name, the class names, and images and labels of every split in order")
    splits: dict[str, int] = Field(description="number of images of train, validation, calibration and test")
    images: str = Field(default="", description="of all images, whatever their names, labels, order and splits")
    split_digests: dict[str, str] = Field(default_factory=dict, description="of the images of each split, in any order")

    @model_serializer(mode="wrap")
    def _as_written_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_empty(written(self), LATER_OF_DATA)


class Image(_Record):
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)


class File(_Record):
    sha256: str
    bytes: int


def _known(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"{task[:40]!r} is not one of {', '.join(TASKS)}")
    return task


class Manifest(_Record):
    schema_version: int = SCHEMA_VERSION
    name: str
    task: Annotated[Task, AfterValidator(_known)]
    network: str
    recipe: str
    seed: int
    arithmetic: Arithmetic = Field(
        default="", description="of the training; empty where it is not known, or no network was trained"
    )
    dataset: Data
    image: Image
    class_names: tuple[str, ...] = Field(description="empty where the data have no labels")
    latent_size: int | None = None
    constants: dict[str, float] = Field(
        default_factory=dict, description="numbers that serving needs beside the graphs"
    )
    statistics: tuple[str, ...] = Field(default=(), description="names of the columns of the scorer's `statistics`")
    parts: dict[str, str] = Field(
        default_factory=dict, description="bundles whose weights are inside, by role: `name:digest`"
    )
    graphs: dict[str, Graph]
    metrics: dict[str, float]
    gates: tuple[Gate, ...] = ()
    versions: dict[str, str] = Field(description="library versions at export")
    files: dict[Annotated[str, AfterValidator(_below)], File] = Field(
        default_factory=dict, description="every file beside the manifest"
    )
    digest: str = ""

    @model_serializer(mode="wrap")
    def _as_written_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Newer fields are left out if they are empty, so that the digests of stored bundles do not change."""
        return _without_empty(written(self), LATER)

    def computed_digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every field but the digest itself."""
        fields = self.model_dump(mode="json", exclude={"digest"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def version(self) -> str:
        """The store's version: the first 12 hex digits of the digest."""
        return self.manifest.digest[:12]

    def graph_path(self, graph: str) -> Path:
        return self.path / self.manifest.graphs[graph].file


def file_record(path: Path) -> File:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return File(sha256=digest, bytes=path.stat().st_size)


def seal(directory: Path, manifest: Manifest) -> Bundle:
    """Hash every file below `directory`, fix the digest and write `manifest.json`.

    Raises:
        BundleError: a graph's file is missing, a name is not usable as a tag, a metric or constant is not finite
            (JSON has no such numbers), or a gate failed.
    """
    if not NAME.fullmatch(manifest.name):
        raise BundleError(f"name {manifest.name!r}: {NAME_RULE}")
    for name, value in (manifest.metrics | manifest.constants).items():
        if not math.isfinite(value):
            raise BundleError(f"{name}: {value} is not a finite number; leave it out or correct its computation")
    for gate in manifest.gates:
        if not gate.passed:
            raise BundleError(f"gate {gate.metric}: {gate.value:.6g} is not {gate.direction} {gate.bound:.6g}")
    files = {
        path.relative_to(directory).as_posix(): file_record(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path not in (directory / MANIFEST, directory / SIGNATURE)
    }
    for graph in manifest.graphs.values():
        if graph.file not in files:
            raise BundleError(f"{directory / graph.file}: the manifest names this graph, but the file does not exist")
    unsigned = manifest.model_copy(update={"files": files, "digest": ""})
    signed = unsigned.model_copy(update={"digest": unsigned.computed_digest()})
    (directory / MANIFEST).write_text(signed.model_dump_json(indent=2) + "\n")
    return Bundle(directory, signed)


def load(directory: Path) -> Bundle:
    """Read a bundle and verify its schema, its digest and the SHA-256 of every file.

    Raises:
        BundleError: naming the file that is missing, damaged, unlisted or of a newer schema.
    """
    path = directory / MANIFEST
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise BundleError(
            f"{path}: not found, so the folder is not a bundle; train a model, or import the bundle again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error}); export or import the bundle again") from None
    if not isinstance(raw, Mapping):
        raise BundleError(
            f"{path}: the JSON is a {type(raw).__name__}, not an object; export or import the bundle again"
        )
    version = raw.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {version!r}, but this Duet reads versions up to {SCHEMA_VERSION}; upgrade Duet"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: field {field}: {first['msg']}") from None
    if not NAME.fullmatch(manifest.name):
        raise BundleError(f"{path}: name {manifest.name!r}: {NAME_RULE}")
    if manifest.digest != manifest.computed_digest():
        raise BundleError(
            f"{path}: the digest {manifest.digest[:12]}… does not match the content "
            f"({manifest.computed_digest()[:12]}…): the manifest was changed after export"
        )
    for name, expected in manifest.files.items():
        _verify_file(directory / name, expected)
    for name, graph in manifest.graphs.items():
        if graph.file not in manifest.files:
            raise BundleError(f"{path}: graph {name} names {graph.file}, which `files` does not list")
    return Bundle(directory, manifest)


def _verify_file(path: Path, expected: File) -> None:
    remedy = "the file is damaged: import or export the bundle again"
    try:
        actual = file_record(path)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}; {remedy}") from None
    if actual != expected:
        raise BundleError(
            f"{path}: SHA-256 {actual.sha256[:12]}… ({actual.bytes} bytes) instead of "
            f"{expected.sha256[:12]}… ({expected.bytes} bytes); {remedy}"
        )
