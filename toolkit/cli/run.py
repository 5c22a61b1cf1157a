"""``toolkit run``: the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON, PROFILE

if TYPE_CHECKING:
    from toolkit.cli.place import Place
    from toolkit.runs import RunRecord

__all__ = ["register"]


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
    destination: Annotated[
        str | None, typer.Option("--output", help="URI for result/ instead of the run's folder.")
    ] = None,
    model: Annotated[str, typer.Option(help="Network.")] = "EfficientNetLite0",
    weights: Annotated[
        str, typer.Option(help="imagenet, a file, a URI, or random:SEED for tests.")
    ] = "imagenet",
    components: Annotated[
        str, typer.Option(help="Share of the variance to explain (0.95), or a number (50).")
    ] = "0.95",
    engine: Annotated[
        str, typer.Option(help="openvino, or tensorflow: the reference.")
    ] = "openvino",
    precision: Annotated[
        str,
        typer.Option(help="auto: the fastest that keeps the features; f32; bf16; int8: faster."),
    ] = "auto",
    input_size: Annotated[
        int | None,
        typer.Option(help="Pixels a side. Default: the network's own; smaller is faster."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even if a run could be continued.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Turn images into features, features into principal components, and write them as Parquet."""
    import json

    from toolkit.cli.bars import make_progress
    from toolkit.cli.place import image_source, open_place
    from toolkit.pca import parse_components
    from toolkit.pipeline import RunRequest
    from toolkit.pipeline import run as run_pipeline

    request = RunRequest(
        images=image_source(images),
        model=model,
        weights=weights,
        components=parse_components(components),
        engine=engine,  # type: ignore[arg-type]  # checked, with the choices named, by the zoo
        precision=precision,  # type: ignore[arg-type]
        input_size=input_size,
        limit=limit,
        fresh=fresh,
        output=destination,
    )
    progress = make_progress()
    place = open_place(profile, say=progress.say)
    record = run_pipeline(request, place.profile, log=place.spark_log, progress=progress)
    if as_json:
        output.print_json(json.loads(record.to_json()))
    else:
        _print_summary(record, place)


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
