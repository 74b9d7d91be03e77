"""The native protocol's requests and answers. Field descriptions are the OpenAPI page's text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.inference.noise import SEED_LIMIT

Images = Annotated[
    list[Any],
    Field(
        min_length=1,
        description="Images, each base64 of a PNG or JPEG file (any size, resized to the model's) or nested lists of "
        "integers 0 to 255. As multipart/form-data: one file part `images` an image.",
        json_schema_extra={"items": {"type": "string"}},
    ),
]
Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Latents = list[list[float]]
Name = Annotated[str | None, Field(description="NAME or NAME:VERSION; left out: the service's first model.")]
Format = Annotated[
    Literal["grid", "png", "array"],
    Field(
        description="grid: one PNG as the answer's body; png: JSON, base64 of a PNG each; array: JSON, nested lists."
    ),
]

Policy = Literal["p-value", "pac", "fdr", "top-fraction"]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # "4" is text and true is no number


class ClassifyRequest(Request):
    images: Images
    top_k: int = Field(default=3, ge=1, description="Classes in the answer, most probable first.")
    prediction_set: bool = Field(
        default=False, description="Add the classes that hold the true one at the stated coverage (conformal)."
    )
    explanation: Literal["class_activation", "occlusion", "rise"] | None = Field(
        default=None,
        description="Add a PNG of what speaks for the class: class_activation (Zhou et al., 2016) comes from the graph "
        "at no cost; occlusion (Zeiler and Fergus, 2014) and rise (Petsiuk et al., 2018) hide parts of the image, some "
        "hundred times.",
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
    sampler: Literal["prior", "metropolis-hastings"] = Field(
        default="prior",
        description="metropolis-hastings: of 32 draws an image, choose by the discriminator (Turner et al., 2019).",
    )
    latents: Latents | None = Field(
        default=None, min_length=1, description="Draw from these instead of from a seed: one list an image."
    )
    quality: bool = Field(
        default=False, description="Add what the classifier and the scorer of the same data say of each image."
    )
    min_quality: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Draw an image again, up to 8 times, until the classifier gives its class this probability.",
    )
    format: Format = "png"
    stream: bool = Field(
        default=False,
        description="Answer in lines of JSON (application/x-ndjson), sent while more is drawn: first model, seed and "
        "count, then index, label, image and quality of each sample, at last how many were drawn, or a problem.",
    )
    model: Name = None

    @model_validator(mode="after")
    def _one_source(self) -> GenerateRequest:
        drawn = {"count", "seed", "truncation", "min_quality", "sampler"} & self.model_fields_set
        if self.latents is not None and drawn:
            raise ValueError(f"latents are given, so nothing is drawn: leave {' and '.join(sorted(drawn))} out")
        if self.sampler != "prior" and self.min_quality is not None:
            raise ValueError("give either min_quality or a sampler that chooses")
        return self


class InterpolateRequest(Request):
    seeds: list[Seed] | None = Field(default=None, min_length=2, max_length=2, description="Ends, as seeds.")
    latents: Latents | None = Field(default=None, min_length=2, max_length=2, description="Ends, as latents.")
    images: list[Any] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Ends, as images (models with an encoder).",
        json_schema_extra={"items": {"type": "string"}},
    )
    label: str | int | None = Field(default=None, alias="class", description="Class to draw, for conditional models.")
    steps: int = Field(default=8, ge=2, description="Images in the answer, both ends included.")
    path: Literal["spherical", "linear"] = Field(
        default="spherical", description="Great circle between the latents (White, 2016), or straight line."
    )
    format: Format = "png"
    model: Name = None

    @model_validator(mode="after")
    def _one_pair(self) -> InterpolateRequest:
        if sum(ends is not None for ends in (self.seeds, self.latents, self.images)) != 1:
            raise ValueError("give either seeds or latents or images, two of them")
        return self


class ReconstructRequest(Request):
    images: Images
    label: str | int | None = Field(
        default=None,
        alias="class",
        description="What the images show, for conditional models; left out: of all classes, what comes closest.",
    )
    format: Format = "png"
    model: Name = None


class RedrawRequest(Request):
    images: Images
    label: str | int | None = Field(
        default=None, alias="class", description="Class to draw them as; left out: every class in turn."
    )
    format: Format = "png"
    model: Name = None


class ScoreRequest(Request):
    images: Images
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="The rate that `policy` is about.",
    )
    policy: Policy = Field(
        default="p-value",
        description="When an image is anomalous. p-value: its p-value is at most alpha, the rate of false alarms among "
        "normal images, averaged over calibration sets. pac: a lower threshold, at which 95 % of calibration sets have "
        "that rate at most at alpha (Vovk, 2012). fdr: of the anomalous images of this request a share of at most "
        "alpha is normal (Benjamini and Hochberg, 1995; Bates et al., 2023). top-fraction: it is among the most "
        "unusual alpha of this request.",
    )
    per_class: bool = Field(
        default=False,
        description="Judge by the p-value among calibration images of the class that the image resembles.",
    )
    heatmap: bool = Field(default=False, description="Add a PNG of what is unusual where.")
    regions: bool = Field(default=False, description="Add the regions of the heat map that are unusual, at most 16.")
    statistics: bool = Field(default=False, description="Add the p-value of each statistic that the score combines.")
    look_alike: bool = Field(default=False, description="Add a PNG of the normal training image that comes nearest.")
    model: Name = None


class ModelRef(BaseModel):
    name: str
    version: str
    digest: str


class ClassProbability(BaseModel):
    label: str
    index: int
    probability: float


class Prediction(ClassProbability):
    top: list[ClassProbability] = Field(description="The top_k classes, this one first.")
    prediction_set: list[str] | None = Field(
        default=None,
        description="Classes that hold the true one at `coverage`; more than one: abstain, or ask a person.",
    )
    explanation: str | None = Field(
        default=None,
        description="Base64 PNG of the image's size; bright: speaks for the class, as seen from this model.",
    )


class ClassifyResponse(BaseModel):
    model: ModelRef
    coverage: float | None = Field(default=None, description="Of the prediction sets, where they were asked for.")
    predictions: list[Prediction]


class Quality(BaseModel):
    label: str = Field(description="What the classifier takes the image for.")
    probability: float = Field(description="Its probability of the class that was to be drawn, or of its label.")
    p_value: float | None = Field(default=None, description="The scorer's; absent where none is served.")
    draws: int = Field(description="How often the image was drawn; more than 1 only with min_quality.")
    accepted: bool | None = Field(default=None, description="Whether it reached min_quality in the end.")


class GenerateResponse(BaseModel):
    model: ModelRef
    seed: int | None = Field(
        default=None, description="Ask for it again to get these images again; null where none was used."
    )
    labels: list[str] | None = Field(default=None, description="The class of each image, for conditional models.")
    quality: list[Quality] | None = Field(default=None, description="Of each image, where it was asked for.")
    images: list[Any] = Field(json_schema_extra={"items": {"type": "string"}})


class ReconstructResponse(BaseModel):
    model: ModelRef
    labels: list[str] | None = Field(default=None, description="What each was drawn as, for conditional models.")
    errors: list[float] = Field(description="Mean squared error of each image, pixels scaled to 0..1.")
    images: list[Any] = Field(json_schema_extra={"items": {"type": "string"}})


class Region(BaseModel):
    box: tuple[int, int, int, int] = Field(
        description="Left, top, right and bottom in the model's pixels; right and bottom lie just beyond."
    )
    peak: float = Field(description="The highest value of the heat map in it; 1: only 1 % of normal images have more.")
    area: int = Field(description="Its pixels.")


class Score(BaseModel):
    p_value: float = Field(description="Share of normal images at least this strange (conformal, Vovk et al. 2005).")
    anomalous: bool
    score: float = Field(description="Higher is stranger.")
    label: str | None = Field(default=None, description="With per_class: the class that the image resembles.")
    class_p_value: float | None = Field(default=None, description="With per_class: the p-value within that class.")
    statistics: dict[str, float] | None = Field(default=None, description="The p-value of each by itself.")
    regions: list[Region] | None = Field(default=None, description="Largest first.")
    heatmap: str | None = Field(
        default=None, description="Base64 PNG; bright: stranger than 99 % of normal images or pixels."
    )
    look_alike: str | None = Field(default=None, description="Base64 PNG of a training image.")


class ScoreResponse(BaseModel):
    model: ModelRef
    alpha: float
    policy: Policy
    threshold: float | None = Field(
        default=None, description="p-values at or below it are anomalous; absent where it is not one number."
    )
    false_positive_band: tuple[float, float] | None = Field(
        default=None,
        description="Where the rate of false alarms is for the central 95 % of calibration sets of this size (a beta "
        "distribution); absent with fdr and top-fraction.",
    )
    calibration_size: int = Field(description="Images that p-values compare with; with per_class: of the rarest class.")
    smallest_p_value: float = Field(description="No p-value can be below this: 1 / (calibration_size + 1).")
    warning: str | None = Field(default=None, description="What so few calibration images cannot say.")
    scores: list[Score]
