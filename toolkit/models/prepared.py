"""Converts a network once into what an engine loads in a second, kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from toolkit.errors import RequestError
from toolkit.models.graph import GRAPH_VERSION, build_featurizer
from toolkit.models.openvino_import import import_openvino
from toolkit.models.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from toolkit.models.weights import ResolvedWeights
    from toolkit.models.zoo import ModelSpec

__all__ = ["EngineName", "Precision", "PreparedModel", "prepare"]

EngineName = Literal["openvino", "tensorflow"]
Precision = Literal["auto", "f32", "bf16"]

_FILES: dict[EngineName, tuple[str, ...]] = {
    "openvino": ("model.xml", "model.bin"),
    "tensorflow": ("model.keras",),
}
_RECORD = "model.json"


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
        Names of all files in the folder.
    name
        The network's name in the zoo.
    engine
        The engine that can load it.
    precision
        The precision asked for: ``auto`` is bf16 where the processor computes in it and the network
        bears it, else f32.
    input_size
        Height and width in pixels.
    dimensions
        Length of the feature vector.
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
    dimensions: int
    weights_sha256: str
    weights_source: str
    random_weights: bool


def prepare(
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    engine: EngineName = "openvino",
    precision: Precision = "auto",
    cache: Path,
) -> PreparedModel:
    """Convert a network for an engine, or find it converted.

    TensorFlow is imported only for a conversion. Two processes may prepare the same network at the
    same time: each works in its own folder, and the first to rename it into place wins.

    Parameters
    ----------
    spec
        The network.
    weights
        Its weights.
    engine
        The engine to convert for.
    precision
        Precision that inference is to use; the files are f32 in any case.
    cache
        The user's cache folder; the result is in ``prepared/<key>/`` below it.

    Raises
    ------
    RequestError
        When there is no such engine or precision, when they do not go together, or when the weights
        do not fit the network.
    """
    _check(engine, precision)
    key = _key(spec, weights, engine)
    folder = cache / "prepared" / key
    if not (folder / _RECORD).is_file():
        _convert(spec, weights, engine=engine, folder=folder, keras_home=cache / "keras")
    record = json.loads((folder / _RECORD).read_text())
    return PreparedModel(
        key=key,
        folder=str(folder),
        files=(*_FILES[engine], _RECORD),
        name=spec.name,
        engine=engine,
        precision=precision,
        input_size=spec.input_size,
        dimensions=spec.dimensions,
        weights_sha256=record["weights_sha256"],
        # Where they were found this time: the same weights may have come from elsewhere before.
        weights_source=weights.source,
        random_weights=weights.is_random,
    )


def _check(engine: str, precision: str) -> None:
    for option, value, choices in (
        ("engine", engine, get_args(EngineName)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in choices:
            raise RequestError(
                f"There is no {option} {value!r}.", remedy=f"Choose one of: {', '.join(choices)}."
            )
    if (engine, precision) == ("tensorflow", "bf16"):
        raise RequestError(
            "The TensorFlow engine is the f32 reference and has no bf16.",
            remedy="Use --engine openvino, or --precision f32.",
        )


def _key(spec: ModelSpec, weights: ResolvedWeights, engine: EngineName) -> str:
    libraries = {name: version(name) for name in ("keras", "openvino")}
    parts = [GRAPH_VERSION, asdict(spec), weights.identity, engine, libraries]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{spec.name.lower()}-{engine}-{digest[:16]}"


def _convert(
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    engine: EngineName,
    folder: Path,
    keras_home: Path,
) -> None:
    tensorflow = import_tensorflow(keras_home=keras_home)
    model, sha256 = build_featurizer(spec, weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        if engine == "openvino":
            _save_openvino(tensorflow, model, spec=spec, path=unfinished / "model.xml")
        else:
            model.save(unfinished / "model.keras")
        _write_record(spec, weights, sha256=sha256, path=unfinished / _RECORD)
        _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _save_openvino(tensorflow: Any, model: Any, *, spec: ModelSpec, path: Path) -> None:
    openvino = import_openvino()
    pixels = tensorflow.TensorSpec([None, *spec.input_size, 3], tensorflow.uint8, name="pixels")
    inference = tensorflow.function(
        lambda pixels: model(pixels, training=False), input_signature=[pixels]
    )
    converted = openvino.convert_model(inference.get_concrete_function())
    openvino.save_model(converted, path, compress_to_fp16=False)


def _write_record(spec: ModelSpec, weights: ResolvedWeights, *, sha256: str, path: Path) -> None:
    record = {
        "name": spec.name,
        "input_size": spec.input_size,
        "dimensions": spec.dimensions,
        "weights_sha256": sha256,
        "weights_source": weights.source,
        "random_weights": weights.is_random,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def _publish(unfinished: Path, folder: Path) -> None:
    unfinished.chmod(0o755)  # mkdtemp keeps others out; executors may run as another user
    try:
        unfinished.rename(folder)
    except OSError:
        if not (folder / _RECORD).is_file():
            raise
