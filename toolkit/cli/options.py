"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "ALLOW_CROSS_REGION",
    "CLOUD_PROFILE",
    "COMPONENTS",
    "DESTINATION",
    "ENGINE",
    "INPUT_SIZE",
    "JSON",
    "LIMIT",
    "MODEL",
    "PRECISION",
    "PROFILE",
    "WEIGHTS",
]

PROFILE = Annotated[
    str | None, typer.Option("--profile", "-p", help="Where to work: a profile of toolkit.toml.")
]
CLOUD_PROFILE = Annotated[
    str, typer.Option("--profile", "-p", help="Which bucket and instances: a profile of AWS.")
]
"""Of commands that work in AWS alone: their default is ``"aws"``, whatever the others' is."""
ALLOW_CROSS_REGION = Annotated[
    bool,
    typer.Option(
        "--allow-cross-region",
        help="Bucket and instances may be in different regions; AWS charges for each GB.",
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

# What a run is asked for, here or on EC2.
MODEL = Annotated[str, typer.Option(help="Network.")]
WEIGHTS = Annotated[str, typer.Option(help="imagenet, a file, a URI, or random:SEED for tests.")]
COMPONENTS = Annotated[
    str, typer.Option(help="Share of the variance to explain (0.95), or a number (50).")
]
ENGINE = Annotated[str, typer.Option(help="openvino, or tensorflow: the reference.")]
PRECISION = Annotated[
    str, typer.Option(help="auto: the fastest that keeps the features; f32; bf16; int8: faster.")
]
INPUT_SIZE = Annotated[
    int | None, typer.Option(help="Pixels a side. Default: the network's own; smaller is faster.")
]
LIMIT = Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")]
DESTINATION = Annotated[
    str | None, typer.Option("--output", help="URI for result/ instead of the run's folder.")
]
