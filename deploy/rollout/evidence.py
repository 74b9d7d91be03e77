"""What two groups of pods answered, from their `/metrics` pages sampled twice."""

import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

# The routes that models answer; probes and pages say nothing about a model.
ROUTES = ("/classify", "/generate", "/interpolate", "/reconstruct", "/redraw", "/score", "/v2/models/{model}/infer")
TOO_BUSY = "429"
PREDICTIONS, P_VALUES = "duet_predictions_total", "duet_anomaly_p_value"
REQUESTS = "duet_request_duration_seconds"

Series = tuple[str, frozenset[tuple[str, str]]]
Page = dict[Series, float]


class EvidenceError(Exception):
    """The pages cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class Counts:
    """What one group of pods answered between two samples.

    Attributes:
        requests: answers of models, whatever their status.
        errors: those with a status of 5xx or 429.
        within: of the other answers, how many took at most so many seconds; the last bound is infinite.
        classes: images by predicted class, by the version that is compared.
        p_values: p-values of that version that are at most the bound.
        images: predictions and p-values of all versions together.
    """

    requests: float
    errors: float
    within: Mapping[float, float]
    classes: Mapping[str, float]
    p_values: Mapping[float, float]
    images: float


def sample(urls: Sequence[str]) -> list[Page]:
    """The pages of pods.

    Raises:
        EvidenceError: a pod does not answer.
    """
    return [_page(url) for url in urls]


def _page(url: str) -> Page:
    address = f"{url.rstrip('/')}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310  # the caller's address
            text = answer.read().decode()
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise EvidenceError(f"{address}: {error}; give the address of a pod, such as http://10.0.0.7:3000") from None
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def over(seconds: float, groups: Sequence[Sequence[str]]) -> list[list[Page]]:
    """What each pod of each group counted in so many seconds from now.

    Raises:
        EvidenceError: a pod does not answer, or began anew meanwhile.
    """
    before = [sample(urls) for urls in groups]
    time.sleep(seconds)
    after = [sample(urls) for urls in groups]
    return [
        [_difference(url, *pages) for url, *pages in zip(urls, olds, news, strict=True)]
        for urls, olds, news in zip(groups, before, after, strict=True)
    ]


def _difference(url: str, before: Page, after: Page) -> Page:
    counted = {series: value - before.get(series, 0.0) for series, value in after.items() if _is_count(series[0])}
    if any(value < 0 for value in counted.values()) or any(_is_count(one[0]) and one not in after for one in before):
        raise EvidenceError(f"{url}: it was started again between the two samples; compare once more")
    return counted


def _is_count(name: str) -> bool:
    return name == PREDICTIONS or name in (f"{P_VALUES}_bucket", f"{REQUESTS}_bucket", f"{P_VALUES}_count")


def counts(pages: Sequence[Page], model: str) -> Counts:
    """The sums over pods; `model` is `NAME:VERSION`, whose classes and p-values count."""
    name, _, version = model.partition(":")
    within: defaultdict[float, float] = defaultdict(float)
    classes: defaultdict[str, float] = defaultdict(float)
    p_values: defaultdict[float, float] = defaultdict(float)
    requests = errors = images = 0.0
    for page in pages:
        for (metric, labelled), value in page.items():
            labels = dict(labelled)
            bound = float(labels.get("le", "nan"))
            compared = labels.get("model") == name and labels.get("version") == version
            if metric == f"{REQUESTS}_bucket" and labels["route"] in ROUTES:
                failed = labels["status"] == TOO_BUSY or labels["status"] >= "500"
                if bound == float("inf"):
                    requests += value
                    errors += value * failed
                within[bound] += value * (not failed)
            elif metric == PREDICTIONS:
                images += value
                classes[labels["label"]] += value * compared
            elif metric == f"{P_VALUES}_bucket":
                p_values[bound] += value * compared
            elif metric == f"{P_VALUES}_count":
                images += value
    return Counts(requests, errors, dict(within), dict(classes), dict(p_values), images)


def check_served(groups: Sequence[Sequence[str]], models: Sequence[str]) -> None:
    """See that every pod serves every model, each `NAME:VERSION`.

    Raises:
        EvidenceError: a pod does not; requests that are pinned to that version would fail there.
    """
    for urls in groups:
        for url, page in zip(urls, sample(urls), strict=True):
            served = {
                f"{labels['model']}:{labels['version']}"
                for (name, labelled), value in page.items()
                if name == "duet_model_info" and value == 1 and (labels := dict(labelled))
            }
            for model in models:
                if model not in served:
                    have = ", ".join(sorted(served)) or "no model"
                    raise EvidenceError(f"{url}: it does not serve {model} but {have}; add it to its DUET_MODELS first")
