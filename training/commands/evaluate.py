"""`duet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.commands.stop import stop
from training.commands.options import (
    Colour,
    DataDir,
    ImageSize,
    SkipUnreadable,
    TrustParts,
    data_of,
    need_training_extra,
)


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME or NAME:VERSION, as `duet models list` shows.")],
    dataset: Annotated[
        str | None, typer.Option(help="As in `duet train`. Default: the data that the model was trained on.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Classifier that judges a generator's samples, NAME or NAME:VERSION.")
    ] = None,
    trust_parts: TrustParts = False,
    out: Annotated[Path, typer.Option(help="Folder for report.md and its pictures.")] = Path("runs/evaluation"),
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Measure more, in minutes instead of seconds. Classifiers: attacks, checks of the explanations, "
            "corruptions of every image. Generators: the likelihood of every image, a GAN's samplers, a classifier "
            "trained on samples alone. Scorers: every test image, 2,000 anomalies of each kind, the AUROC of each "
            "statistic.",
        ),
    ] = False,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Evaluate a stored bundle on a test split and write a report with pictures.

    ONNX Runtime runs the bundle's graphs, as in the service. The report of a classifier also shows its worst mistakes
    and its accuracy on corrupted images.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415

    bundle = registry.load(model)
    referee = registry.load(judge) if judge else None
    data = data_of(bundle, dataset, data_dir, image_size, colour, skip_unreadable)
    from training.data.seen import may_have_seen, require_apart  # noqa: PLC0415
    from training.kinds import product_of  # noqa: PLC0415 (imports PyTorch, which takes seconds)
    from training.publishing.report import add_chapter  # noqa: PLC0415
    from training.publishing.report import evaluate as run  # noqa: PLC0415

    try:
        if referee is not None:
            require_apart("--judge", referee, data, trusted=trust_parts)
        metrics = run(product_of(bundle.manifest), bundle, data, judge=referee, out=out, full=full, data_dir=data_dir)
        if full and bundle.manifest.task == "generation":
            from training.studies.accuracy_score import classification_accuracy_score  # noqa: PLC0415

            score = classification_accuracy_score(bundle, data)
            if score:
                add_chapter(out, "A classifier trained on samples alone", score)
            metrics |= score
    except ValueError as error:
        stop(str(error))
    for name, value in metrics.items():
        Console().print(f"{name:40} {value:.6g}", highlight=False)
    if why := may_have_seen(bundle, data):
        typer.echo(f"note: {bundle.name}: {why}; if it has seen the test images, the metrics are too good", err=True)
    Console().print(f"report: {out / 'report.md'}", highlight=False, soft_wrap=True)
