"""The native protocol's answers. The OpenAPI page shows the descriptions of the fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from services.inference.classifier import Likelihood
from services.protocol.native.requests import PIXELS
from services.tasks.anomaly import Policy


class ModelRef(BaseModel):
    name: str
    version: str
    digest: str


class ClassProbability(BaseModel):
    label: str
    index: int
    probability: float


class Prediction(ClassProbability):
    top: list[ClassProbability] = Field(description="The top_k classes, most probable first.")
    prediction_set: list[str] | None = Field(
        default=None,
        description="Classes that include the true one with probability `coverage`; with more than one, the image is "
        "ambiguous.",
    )
    log_joint: dict[str, float] | None = Field(
        default=None, description="A lower bound on log p(x, y) for every class y, in nats."
    )
    log_evidence: float | None = Field(
        default=None, description="A lower bound on log p(x), in nats: the log-sum-exp of log_joint."
    )
    explanation: str | None = Field(
        default=None,
        description="Base64 PNG of the size of the image; bright pixels support the class, according to this model.",
    )


class LogJointBound(BaseModel):
    bound: str = Field(description="The lower bound on log p(x, y), and its number of draws.")
    prior: str = Field(description="Of the latents and of the classes.")
    likelihood: Likelihood = Field(
        description="Of a pixel. bernoulli: pixels are 0 or 1, and a grey image stands for its random binarisations; "
        "logistic: grey levels; none: the cross-entropy of grey pixels is not a likelihood, so the values can only be "
        "compared with each other."
    )
    error: float = Field(
        description="Root mean square difference, in nats, of log_evidence from the bound with many draws."
    )


class ClassifyResponse(BaseModel):
    model: ModelRef
    coverage: float | None = Field(default=None, description="Coverage of the prediction sets, if they were requested.")
    log_joint: LogJointBound | None = Field(default=None, description="What log_joint is, if it was requested.")
    predictions: list[Prediction]


class Quality(BaseModel):
    label: str = Field(description="The class that the classifier predicts.")
    probability: float = Field(description="The classifier's probability of the drawn class; without one, of `label`.")
    p_value: float | None = Field(default=None, description="The scorer's p-value; absent if no scorer is served.")
    draws: int = Field(description="How often the image was drawn; more than 1 only with min_quality.")
    accepted: bool | None = Field(default=None, description="Whether the image reached min_quality.")


class GenerateResponse(BaseModel):
    model: ModelRef
    seed: int | None = Field(
        default=None, description="The seed that was used; send it to get the same images. Absent if latents were sent."
    )
    labels: list[str] | None = Field(default=None, description="The class of each image, for conditional models.")
    quality: list[Quality] | None = Field(default=None, description="The quality of each image, if it was requested.")
    images: list[Any] = Field(json_schema_extra=PIXELS)


class ReconstructResponse(BaseModel):
    model: ModelRef
    labels: list[str] | None = Field(
        default=None, description="The class that each was drawn as, for conditional models."
    )
    errors: list[float] = Field(description="Mean squared error of each image, pixels scaled to 0..1.")
    images: list[Any] = Field(json_schema_extra=PIXELS)


class Region(BaseModel):
    box: tuple[int, int, int, int] = Field(
        description="Left, top, right and bottom in pixels of the model's images; right and bottom are exclusive."
    )
    peak: float = Field(description="Highest value of the heat map in the region; 1 % of normal images exceed 1.")
    area: int = Field(description="Number of pixels.")


class Score(BaseModel):
    p_value: float = Field(description="Share of normal images at least as unusual (conformal, Vovk et al. 2005).")
    anomalous: bool
    score: float = Field(description="The combined statistic; higher is more unusual.")
    label: str | None = Field(default=None, description="With per_class: the predicted class.")
    class_p_value: float | None = Field(default=None, description="With per_class: the p-value within that class.")
    statistics: dict[str, float] | None = Field(default=None, description="The p-value of each statistic alone.")
    regions: list[Region] | None = Field(default=None, description="Unusual regions, largest first.")
    heatmap: str | None = Field(
        default=None, description="Base64 PNG; 1 % of normal images exceed the value that is shown brightest."
    )
    look_alike: str | None = Field(default=None, description="Base64 PNG of the nearest normal training image.")


class ScoreResponse(BaseModel):
    model: ModelRef
    alpha: float
    policy: Policy
    threshold: float | None = Field(
        default=None, description="p-values up to this are anomalous; absent if there is not one number for all images."
    )
    false_positive_band: tuple[float, float] | None = Field(
        default=None,
        description="The rate of false alarms for the central 95 % of calibration sets of this size (a beta "
        "distribution); absent with fdr and top-fraction.",
    )
    calibration_size: int = Field(
        description="Number of calibration images; with per_class: of the rarest class in the answer."
    )
    smallest_p_value: float = Field(description="1 / (calibration_size + 1); no p-value is smaller.")
    warning: str | None = Field(default=None, description="What is not possible with so few calibration images.")
    scores: list[Score]
