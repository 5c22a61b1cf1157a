"""Converts a network once into what an engine loads in a second, or finds it converted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from toolkit.errors import JobError, RequestError
from toolkit.models.conversion import (
    ENGINE_FILES,
    Converted,
    EngineName,
    convert,
    convert_to_int8,
)
from toolkit.models.graph import GRAPH_VERSION
from toolkit.models.nncf_import import nncf_version
from toolkit.models.prepared_files import (
    RECORD,
    bucket_uri,
    fetch_files,
    is_whole,
    new_folder,
    write_record,
)
from toolkit.models.quantization import QUANTIZATION_VERSION

if TYPE_CHECKING:
    from toolkit.models.bucket import ModelBucket
    from toolkit.models.quantization import Calibration
    from toolkit.models.weights import ResolvedWeights
    from toolkit.models.zoo import Head, ModelSpec

__all__ = [
    "EXACT_PRECISIONS",
    "EngineName",
    "Precision",
    "PreparedModel",
    "check_exact",
    "check_setting",
    "fetch_prepared",
    "prepare",
]

Precision = Literal["auto", "f32", "bf16", "int8"]

EXACT_PRECISIONS = ("auto", "f32", "bf16")
"""Those that need no images to be made: all but int8."""


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A converted network: small and picklable, so that it travels to the executors.

    Parameters
    ----------
    key
        Name of its folder, a hash over all that its content depends on.
    folder
        Where its files are on this machine.
    files
        Names of all files in the folder; the last one holds the checksums of the others.
    name
        The network's name in the zoo.
    engine
        The engine that can load it.
    precision
        The precision asked for: ``auto`` is bf16 where the processor computes in it and the network
        bears it, else f32. ``int8`` is in the files, the others are made of the same ones.
    input_size
        Height and width in pixels.
    head
        What it ends in.
    dimensions
        Length of what it gives for one image: a feature vector, or probabilities.
    multiply_adds
        Arithmetic for one image at this input size: multiply-adds of all kernels.
    weights_sha256
        Of the weights file, or of the random tensors.
    weights_source
        Where the weights come from, for people.
    random_weights
        Whether the weights are random: fit for tests and benchmarks only.
    """

    key: str
    folder: str
    files: tuple[str, ...]
    name: str
    engine: EngineName
    precision: Precision
    input_size: tuple[int, int]
    head: Head
    dimensions: int
    multiply_adds: int
    weights_sha256: str
    weights_source: str
    random_weights: bool


def prepare(  # noqa: PLR0913 - all that decides on the files
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    engine: EngineName = "openvino",
    precision: Precision = "auto",
    input_size: int | tuple[int, int] | None = None,
    head: Head = "pooled",
    calibration: Calibration | None = None,
    cache: Path,
    bucket: ModelBucket | None = None,
) -> PreparedModel:
    """Convert a network for an engine, or find it converted in the cache or in the bucket.

    TensorFlow is imported only for a conversion, NNCF only to quantize. Two processes may prepare
    the same network at the same time: each works in its own folder, and the first to rename it into
    place wins.

    Parameters
    ----------
    spec
        The network.
    weights
        Its weights.
    engine
        The engine to convert for.
    precision
        Precision that inference is to use.
    input_size
        Sides of the images in pixels, one for both or height and width; None for the native size.
    head
        What the network is to end in.
    calibration
        Images like those that are to come; needed for int8, of no effect otherwise.
    cache
        The user's cache folder; the result is in ``prepared/<key>/`` below it.
    bucket
        The object store, where there is one: asked for ``models/prepared/<key>/``, never written.

    Raises
    ------
    RequestError
        When there is no such engine or precision, when they do not go together, when the network
        does not bear the size or the weights do not fit it, or when int8 is asked for and NNCF or
        images are missing.
    """
    check_setting(engine, precision)
    network = _Network(
        spec=spec,
        weights=weights,
        engine=engine,
        input_size=spec.resolve_size(input_size, head=head),
        head=head,
        calibration=_calibration(calibration) if precision == "int8" else None,
    )
    key = network.key()
    folder = cache / "prepared" / key
    files = (*ENGINE_FILES[engine], RECORD)
    if not (is_whole(folder, files) or (bucket and fetch_files(bucket, folder, files))):
        with new_folder(folder, files) as unfinished:
            converted = _convert(network, unfinished, cache=cache, bucket=bucket)
            write_record(unfinished, {**network.summary(), **asdict(converted)})
    record = json.loads((folder / RECORD).read_text())
    return PreparedModel(
        key=key,
        folder=str(folder),
        files=files,
        name=spec.name,
        engine=engine,
        precision=precision,
        input_size=network.input_size,
        head=head,
        dimensions=record["dimensions"],
        multiply_adds=record["multiply_adds"],
        weights_sha256=record["weights_sha256"],
        weights_source=weights.source,
        random_weights=weights.is_random,
    )


def fetch_prepared(prepared: PreparedModel, *, cache: Path, bucket: ModelBucket) -> PreparedModel:
    """Have a network on this machine that another one prepared.

    Parameters
    ----------
    prepared
        The network.
    cache
        The cache folder of this machine.
    bucket
        Holds its files in ``models/prepared/<key>/``.

    Raises
    ------
    JobError
        When the bucket does not hold all of it, undamaged.
    """
    folder = cache / "prepared" / prepared.key
    if not (is_whole(folder, prepared.files) or fetch_files(bucket, folder, prepared.files)):
        uri = bucket_uri(bucket, prepared.key)
        raise JobError(
            f"The prepared model in {uri} is missing or damaged.",
            remedy="Delete what is there and run again: it is uploaded anew.",
        )
    return replace(prepared, folder=str(folder))


@dataclass(frozen=True, kw_only=True)
class _Network:
    """All that the files of a prepared network depend on."""

    spec: ModelSpec
    weights: ResolvedWeights
    engine: EngineName
    input_size: tuple[int, int]
    head: Head
    calibration: Calibration | None

    def key(self) -> str:
        parts = [
            GRAPH_VERSION,
            self.spec.name,
            self.weights.identity,
            self.engine,
            self.input_size,
            self.head,
            {name: version(name) for name in ("keras", "openvino")},
        ]
        labels = [self.spec.name.lower(), self.engine, "x".join(map(str, self.input_size))]
        if self.head != "pooled":
            labels.append(self.head)
        if self.calibration is not None:
            parts += [QUANTIZATION_VERSION, nncf_version(), self.calibration.identity]
            labels.append("int8")
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return "-".join([*labels, digest[:16]])

    def summary(self) -> dict[str, object]:
        """Return what its record says to people."""
        return {
            "name": self.spec.name,
            "input_size": self.input_size,
            "head": self.head,
            "int8": self.calibration is not None,
            "random_weights": self.weights.is_random,
        }


def _calibration(calibration: Calibration | None) -> Calibration:
    if calibration is None:
        raise RequestError(
            "Precision int8 needs images to measure the network's ranges on.",
            remedy="Choose the precision f32, or name images.",
        )
    return calibration


def _convert(
    network: _Network, folder: Path, *, cache: Path, bucket: ModelBucket | None
) -> Converted:
    spec, weights = network.spec, network.weights
    size, head = network.input_size, network.head
    if network.calibration is None:
        return convert(
            spec,
            weights,
            engine=network.engine,
            input_size=size,
            head=head,
            folder=folder,
            keras_home=cache / "keras",
        )
    exact = prepare(
        spec, weights, precision="f32", input_size=size, head=head, cache=cache, bucket=bucket
    )
    convert_to_int8(Path(exact.folder), network.calibration, input_size=size, folder=folder)
    return Converted(
        weights_sha256=exact.weights_sha256,
        dimensions=exact.dimensions,
        multiply_adds=exact.multiply_adds,
    )


def check_exact(precision: str) -> None:
    """Raise a RequestError where a precision is none, or int8, which needs images to be made."""
    check_setting("openvino", precision)
    if precision not in EXACT_PRECISIONS:
        raise RequestError(
            f"Precision {precision} is not for this.",
            remedy=f"Choose one of: {', '.join(EXACT_PRECISIONS)}.",
        )


def check_setting(engine: str, precision: str) -> None:
    """Raise a RequestError where there is no such engine or precision, or not together."""
    for option, value, choices in (
        ("engine", engine, get_args(EngineName)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in choices:
            raise RequestError(
                f"There is no {option} {value!r}.", remedy=f"Choose one of: {', '.join(choices)}."
            )
    if engine == "tensorflow" and precision in {"bf16", "int8"}:
        raise RequestError(
            f"The TensorFlow engine is the f32 reference and has no {precision}.",
            remedy="Use the engine openvino, or the precision f32.",
        )
