"""The native protocol's requests. The OpenAPI page shows the descriptions of the fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.inference.noise import SEED_LIMIT
from services.tasks.anomaly import Policy
from services.tasks.samples import Sampler

# A four, so that the OpenAPI page has a request that works.
FOUR = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAQ0lEQVR42iXG0RSAMBQA0HsSGMJDCGEIITSDEEIIYQihNIQMhvD66H5dKDcWtPGntDcC"
    "juk6sWWXO+rMJwtYZwciKx8ETxBbrjY12wAAAABJRU5ErkJggg=="
)
PIXELS: dict[str, Any] = {"items": {"anyOf": [{"type": "string"}, {"type": "array"}]}}  # a file in base64, or numbers
Images = Annotated[
    list[Any],
    Field(
        min_length=1,
        description="Images: base64 of PNG or JPEG files (any size; resized to the model's size) or nested lists of "
        "integers 0 to 255. In multipart/form-data: one file part `images` for each image.",
        json_schema_extra=PIXELS | {"examples": [[FOUR]]},
    ),
]


def _number(value: object) -> object:
    """An integer that came as text, because JavaScript rounds numbers above 2^53."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value


Whole = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Text = Annotated[str, Field(pattern="^[0-9]{1,19}$")]
Seed = Annotated[Whole, BeforeValidator(_number, json_schema_input_type=Whole | Text)]
Latents = Annotated[
    list[Any],  # checked row by row, because a streamed request may bring millions of numbers
    Field(json_schema_extra={"items": {"type": "array", "items": {"type": "number"}}}),
]
Name = Annotated[
    str | None,
    Field(description="NAME (its default version, else the newest) or NAME:VERSION; left out: the default model."),
]
Format = Annotated[
    Literal["grid", "png", "array"],
    Field(description="grid: one PNG of all images as the body; png: JSON, base64 PNGs; array: JSON, nested lists."),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # neither "4" nor true is accepted as a number


class ClassifyRequest(Request):
    images: Images
    top_k: int = Field(default=3, ge=1, description="Classes in the answer, most probable first.")
    prediction_set: bool = Field(
        default=False,
        description="Add a set of classes that contains the true class at the stated coverage (conformal).",
    )
    log_joint: bool = Field(
        default=False,
        description="Add log p(x, y) in nats for every class, and log p(x). Only generative classifiers (Bayes' rule) "
        "know them.",
    )
    explanation: Literal["class_activation", "occlusion", "rise"] | None = Field(
        default=None,
        description="Add a heat map (PNG) of the pixels that support the class: class_activation (Zhou et al., 2016) "
        "costs nothing; occlusion (Zeiler and Fergus, 2014) and rise (Petsiuk et al., 2018) run the model some hundred "
        "times.",
    )
    explain_class: str | int | None = Field(
        default=None, description="Class name or index to explain; left out: the most probable one of each image."
    )
    model: Name = None


class GenerateRequest(Request):
    count: int = Field(default=16, ge=1, description="Samples to draw.")
    label: str | int | None = Field(
        default=None, alias="class", description="Class name or index to draw; left out: all classes in turn."
    )
    seed: Seed | None = Field(default=None, description="The same seed gives the same bytes; left out: a new one.")
    truncation: float = Field(
        default=1.0, gt=0, le=2, description="Scale of the latents; below 1: more typical, less diverse."
    )
    sampler: Sampler = Field(
        default="prior",
        description="metropolis-hastings: draw 32 times for each image and choose by the discriminator "
        "(Turner et al., 2019).",
    )
    latents: Latents | None = Field(
        default=None,
        min_length=1,
        description="Draw from these latents instead of from a seed: one list for each image.",
    )
    quality: bool = Field(
        default=False, description="Add the results of the classifier and the scorer of the same data for each image."
    )
    min_quality: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Draw an image again, at most 8 times, until the classifier gives its class this probability.",
    )
    format: Format = "png"
    stream: bool = Field(
        default=False,
        description="Answer in lines of JSON (application/x-ndjson) while more images are drawn. First line: model, "
        "seed and count. Then one line for each sample: index, label, image, quality. Last line: drawn, the number of "
        "samples, or a problem.",
    )
    model: Name = None

    @model_validator(mode="after")
    def _one_source(self) -> GenerateRequest:
        drawn = {"count", "seed", "truncation", "min_quality", "sampler"} & self.model_fields_set
        if self.latents is not None and drawn:
            raise ValueError(f"with latents, leave {' and '.join(sorted(drawn))} out: no latents are drawn")
        if self.sampler != "prior" and self.min_quality is not None:
            raise ValueError(f"min_quality and sampler {self.sampler} exclude each other; leave one out")
        return self


class InterpolateRequest(Request):
    seeds: list[Seed] | None = Field(default=None, min_length=2, max_length=2, description="Two ends, as seeds.")
    latents: Latents | None = Field(default=None, min_length=2, max_length=2, description="Two ends, as latents.")
    images: list[Any] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Two ends, as images (models with an encoder).",
        json_schema_extra=PIXELS,
    )
    label: str | int | None = Field(default=None, alias="class", description="Class to draw, for conditional models.")
    steps: int = Field(default=8, ge=2, description="Images in the answer, both ends included.")
    path: Literal["spherical", "linear"] = Field(
        default="spherical",
        description="spherical: great circle between the latents (White, 2016); linear: straight line.",
    )
    format: Format = "png"
    model: Name = None

    @model_validator(mode="after")
    def _one_pair(self) -> InterpolateRequest:
        if sum(ends is not None for ends in (self.seeds, self.latents, self.images)) != 1:
            raise ValueError("send the two ends as exactly one of seeds, latents and images")
        return self


class ReconstructRequest(Request):
    images: Images
    label: str | int | None = Field(
        default=None,
        alias="class",
        description="Class that the images show, for conditional models; left out: the class whose image is nearest.",
    )
    format: Format = "png"
    model: Name = None


class RedrawRequest(Request):
    images: Images
    label: str | int | None = Field(
        default=None, alias="class", description="Class to draw the images as; left out: every class in turn."
    )
    format: Format = "png"
    model: Name = None


class ScoreRequest(Request):
    images: Images
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="The rate or share that `policy` bounds.",
    )
    policy: Policy = Field(
        default="p-value",
        description="When an image is anomalous. p-value: its p-value is at most alpha; the rate of false alarms among "
        "normal images is then at most alpha, on average over calibration sets. pac: its p-value is at most a lower "
        "threshold; for 95 % of calibration sets that rate is at most alpha (Vovk, 2012). fdr: at most a "
        "share alpha of the anomalous images of this request is normal, in expectation (Benjamini and Hochberg, 1995; "
        "Bates et al., 2023). top-fraction: it belongs to the share alpha of this request with the highest scores.",
    )
    per_class: bool = Field(
        default=False,
        description="Use the p-value among calibration images of the predicted class only.",
    )
    heatmap: bool = Field(default=False, description="Add a PNG that shows where the image is unusual.")
    regions: bool = Field(default=False, description="Add the unusual regions of the heat map, at most 16.")
    statistics: bool = Field(default=False, description="Add the p-value of each statistic that the score combines.")
    look_alike: bool = Field(default=False, description="Add a PNG of the nearest normal training image.")
    model: Name = None
