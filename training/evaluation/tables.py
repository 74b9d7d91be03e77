"""Markdown tables of metrics, gates and parity, for cards and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.inference.bundle import Bundle, Gate

UNITS = {
    "negative_elbo": "nats per image",
    "reconstruction_loss": "nats per image",
    "kl_divergence": "nats per image",
    "pixel_entropy": "nats per image",
    "mean_image_loss": "nats per image",
    "nll": "nats",
    "mean_set_size": "classes",
    "reconstruction_error": "squared error per pixel, pixels in 0..1",
    "perceptual_distance": "1: distance of two random images",
    "relative_diversity": "1: diversity of real images",
}


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One row for each metric; `precision/3`, `recall/3`, `f1/3` form a second table with one row for each class."""
    per_class: dict[str, dict[str, float]] = {}
    rows = []
    for name, value in metrics.items():
        measure, _, of = name.partition("/")
        if f"f1/{of}" in metrics:
            per_class.setdefault(of, {})[measure] = value
        else:
            rows.append((name, f"{value:.5g}", UNITS.get(name, "")))
    result = table(("metric", "value", "unit"), rows)
    if per_class:
        classes = [(name, *(f"{value:.4f}" for value in row.values())) for name, row in per_class.items()]
        result += "\n\n" + table(("class", "precision", "recall", "F1"), classes)
    return result


def gates_table(gates: Iterable[Gate]) -> str:
    rows = [
        (gate.metric, f"{gate.value:.5g}", f"{gate.direction} {gate.bound:.5g}", "yes" if gate.passed else "**no**")
        for gate in gates
    ]
    return table(("gate", "value", "bound", "passed"), rows)


def parity_table(bundles: Iterable[Bundle]) -> str:
    """One row for each graph: the difference from PyTorch of the element nearest to its bound, and that bound."""
    rows = []
    for bundle in bundles:
        for graph in bundle.manifest.graphs.values():
            parity = graph.parity
            top1 = "" if parity.top1_agreement is None else f"{parity.top1_agreement:.2%}"
            sizes = ", ".join(str(size) for size in parity.batch_sizes)
            rows.append((bundle.name, graph.file, sizes, f"{parity.max_abs_diff:.2g}", f"{parity.bound:.2g}", top1))
    return table(("bundle", "graph", "batch sizes", "difference", "bound", "top-1 agreement"), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
