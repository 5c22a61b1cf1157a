"""``toolkit run``: the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import output
from toolkit.cli.options import (
    COMPONENTS,
    DESTINATION,
    ENGINE,
    INPUT_SIZE,
    JSON,
    LIMIT,
    MODEL,
    PRECISION,
    PROFILE,
    WEIGHTS,
)

if TYPE_CHECKING:
    from toolkit.cli.place import Place
    from toolkit.pipeline import RunRequest
    from toolkit.runs import RunRecord

__all__ = ["register", "run_request"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    images: Annotated[
        str | None,
        typer.Argument(
            help="A folder (mirrored to the bucket first) or an s3:// URI. "
            "Default: the sample images."
        ),
    ] = None,
    profile: PROFILE = None,
    destination: DESTINATION = None,
    model: MODEL = "EfficientNetLite0",
    weights: WEIGHTS = "imagenet",
    components: COMPONENTS = "0.95",
    engine: ENGINE = "openvino",
    precision: PRECISION = "auto",
    input_size: INPUT_SIZE = None,
    limit: LIMIT = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even if a run could be continued.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Turn images into features, features into principal components, and write them as Parquet."""
    import json

    from toolkit.cli.bars import make_progress
    from toolkit.cli.place import open_place
    from toolkit.pipeline import run as run_pipeline

    request = run_request(
        images,
        model=model,
        weights=weights,
        components=components,
        engine=engine,
        precision=precision,
        input_size=input_size,
        limit=limit,
        fresh=fresh,
        output=destination,
    )
    progress = make_progress()
    place = open_place(profile, say=progress.say)
    try:
        record = run_pipeline(request, place.profile, log=place.spark_log, progress=progress)
    except KeyboardInterrupt:
        output.say(
            "\nInterrupted. What is done stays: the same request, without --fresh, goes on from "
            "there."
        )
        raise
    if as_json:
        output.print_json(json.loads(record.to_json()))
    else:
        _print_summary(record, place)


def run_request(images: str | None, *, components: str, **options: Any) -> RunRequest:
    """Translate what a command line asks of a run; engine, precision and size the zoo checks."""
    from toolkit.cli.place import image_source
    from toolkit.pca import parse_components
    from toolkit.pipeline import RunRequest

    return RunRequest(
        images=image_source(images), components=parse_components(components), **options
    )


def _print_summary(record: RunRecord, place: Place) -> None:
    counts = record.counts
    images = f"{counts.listed} listed, {counts.featurized} featurized"
    explained = 100 * (record.explained_variance or 0)
    computed = f"{record.engine} {record.precision} at {record.input_size[1]} pixels"
    rows: list[tuple[str, object]] = [
        ("images", f"{images}, {counts.quarantined} quarantined; {record.labels} labels"),
        ("model", f"{record.model}, {computed}, weights {record.weights}"),
        ("components", f"{record.components} of {record.dimensions} explain {explained:.1f} %"),
    ]
    if record.fidelity:
        rows.insert(2, ("its price", _price(record.fidelity)))
    if record.random_weights:
        rows.insert(2, ("", "RANDOM WEIGHTS: these features know nothing of images"))
    rows += [(f"time, {stage}", _speed(record, stage)) for stage in record.seconds]
    rows += [(name, record.uris[name]) for name in ("result", "features", "quarantine", "report")]
    rows += place.pages
    output.print_text("")
    output.print_table(("", ""), rows, title=f"Run {record.run_id}: {record.status}")
    command = output.command_name()
    output.print_text("\nNext:")
    lines = [
        f"{command} report --open            # the report of this run in your browser",
        f"{command} run path/to/your/images  # your own: one folder a label",
    ]
    if place.pages:
        lines.append(f"{command} down                     # stop the local stack; its data stays")
    for line in lines:
        output.print_text(f"  {line}")


def _price(fidelity: dict[str, float]) -> str:
    """Say how near the features are to those of the network's own size in f32."""
    return (
        f"cosine to its own size in f32: {fidelity['mean']:.4f} on average, "
        f"{fidelity['least']:.4f} at least; {fidelity['centred']:.4f} about the mean "
        f"({fidelity['images']} images)"
    )


def _speed(record: RunRecord, stage: str) -> str:
    """Say how long a stage took, and how many images a second went through it."""
    seconds = record.seconds[stage]
    through = {
        "images": record.counts.listed,
        "pca": record.counts.featurized,
        "result": record.counts.featurized,
    }
    rate = through.get(stage, 0) / max(seconds, 1e-3)
    if stage == "features":
        rate = record.images_per_second or 0
    return f"{seconds:.1f} s" + (f", {rate:,.0f} images/s" if rate else "")
