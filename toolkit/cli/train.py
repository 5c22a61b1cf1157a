"""``toolkit train`` and ``toolkit predict``: teach a network your labels, and ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON, PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.prediction import ImagePrediction
    from toolkit.trainings import TrainingRecord

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(predict)


def train(
    images: Annotated[
        str | None,
        typer.Argument(
            help="A folder (mirrored to the bucket first) or an s3:// URI, one folder a label. "
            "Default: the sample images."
        ),
    ] = None,
    profile: PROFILE = None,
    model: Annotated[str, typer.Option(help="Network.")] = "EfficientNetLite0",
    weights: Annotated[
        str, typer.Option(help="imagenet, a file, a URI, or random:SEED for tests.")
    ] = "imagenet",
    precision: Annotated[
        str, typer.Option(help="auto: the fastest that keeps the features; f32; bf16.")
    ] = "auto",
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to try, as regParam=0.01,0.1; again for elasticNetParam or maxIter."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 3,
    held_out: Annotated[
        str,
        typer.Option(
            help="Folder below IMAGES to judge on. Where there is none: a fifth of each label."
        ),
    ] = "Test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Train a classifier on the features of images, and judge it on held-out ones."""
    import json

    from toolkit.cli.bars import make_progress
    from toolkit.cli.place import image_source, open_place
    from toolkit.training import TrainRequest, parse_grid
    from toolkit.training import train as train_classifier

    request = TrainRequest(
        images=image_source(images),
        model=model,
        weights=weights,
        precision=precision,  # type: ignore[arg-type]  # checked, with the choices named
        grid=parse_grid(grid or []),
        folds=folds,
        held_out=held_out,
        limit=limit,
    )
    progress = make_progress()
    place = open_place(profile, say=progress.say)
    record = train_classifier(request, place.profile, log=place.spark_log, progress=progress)
    if as_json:
        output.print_json(json.loads(record.to_json()))
    else:
        _print_training(record)


def _print_training(record: TrainingRecord) -> None:
    counts = record.counts
    best = record.candidates[0]
    images = (
        f"{counts['training']} to train on, {counts['held_out']} held out ({record.held_out}), "
        f"{counts['quarantined']} quarantined"
    )
    validated = f"{best.accuracy:.1%} right in {record.folds}-fold cross-validation"
    rows: list[tuple[str, object]] = [
        ("images", images),
        ("model", f"{record.model} {record.precision}, weights {record.weights}"),
        ("best candidate", f"{_params(best.params)}, of {len(record.candidates)}: {validated}"),
        ("accuracy", f"{_percent(record.accuracy)} of the held-out images"),
    ]
    if record.random_weights:
        rows.insert(2, ("", "RANDOM WEIGHTS: these features know nothing of images"))
    rows += [(f"time, {stage}", f"{seconds:.1f} s") for stage, seconds in record.seconds.items()]
    rows += [("model", record.uris["model"]), ("record", record.uris["training"])]
    output.print_text("")
    output.print_table(("", ""), rows, title=f"Training {record.training_id}")
    output.print_text("")
    output.print_table(
        ("label", "held out", "precision", "recall", "taken for"),
        (
            (score.label, score.images, _percent(score.precision), _percent(score.recall), mistakes)
            for score, mistakes in zip(record.scores, _mistakes(record), strict=True)
        ),
    )
    command = output.command_name()
    output.print_text("\nNext:")
    output.print_text(f"  {command} predict --trained {record.training_id} path/to/image.jpg")


def _params(params: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in params.items())


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _mistakes(record: TrainingRecord) -> list[str]:
    """Say of each label what its images were wrongly taken for."""
    return [
        ", ".join(
            f"{count} x {record.labels[column]}"
            for column, count in enumerate(taken)
            if count and column != row
        )
        for row, taken in enumerate(record.confusion)
    ]


def predict(
    images: Annotated[list[str], typer.Argument(help="Files, folders, or their s3:// URIs.")],
    profile: PROFILE = None,
    trained: Annotated[
        str | None, typer.Option(help="A training's id or the start of it: see `toolkit train`.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Network, for the 1,000 classes of ImageNet. Default: EfficientNetLite0."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Its weights: imagenet (default), a file, a URI, or random:SEED."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (default): the fastest that keeps the features; f32; bf16."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many labels to tell.")] = 3,
    as_json: JSON = False,
) -> None:
    """Say what is on images: labels of a training, or classes of ImageNet.

    Folders are mirrored to the bucket first.
    """
    from dataclasses import asdict

    from toolkit.cli.bars import make_progress
    from toolkit.cli.place import image_source, open_place
    from toolkit.errors import RequestError
    from toolkit.prediction import PredictRequest
    from toolkit.prediction import predict as classify

    network = {"model": model, "weights": weights, "precision": precision}
    given: dict[str, Any] = {name: value for name, value in network.items() if value is not None}
    if trained is not None and given:
        raise RequestError(
            f"A training has its own network: --{next(iter(given))} does not go with --trained.",
            remedy="Leave one of them out.",
        )
    request = PredictRequest(
        images=[image_source(image) for image in images], trained=trained, top=top, **given
    )
    progress = make_progress()
    place = open_place(profile, say=progress.say)
    found = classify(request, place.profile, log=place.spark_log, progress=progress)
    readable = False
    told = []
    for prediction in found:
        readable = readable or prediction.reason is None
        if as_json:
            told.append(asdict(prediction))
        else:
            _print_prediction(prediction)
    if as_json:
        output.print_json(told)
    if not readable:
        raise typer.Exit(1)


def _print_prediction(prediction: ImagePrediction) -> None:
    if prediction.reason is not None:
        output.say(f"{prediction.origin} can't be read: {prediction.reason}")
    else:
        output.print_text(f"{prediction.origin}: {_labels(prediction.labels)}")


def _labels(labels: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {probability:.1%}" for label, probability in labels)
