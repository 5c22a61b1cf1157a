"""The networks that are measured, their weights, and what is made ready before measuring.

`python -m benchmarks.networks` converts a network, so that no measurement converts one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from toolkit.folders import cache_folder

__all__ = ["EFFICIENTNET", "RESNET50", "Converted", "Network", "converted", "resnet50_weights"]

_RESNET50_WEIGHTS = cache_folder() / "benchmarks" / "resnet50-random-0.weights.h5"


@dataclass(frozen=True)
class Network:
    """A network in one setting, as `toolkit run` takes it.

    Parameters
    ----------
    model
        Name in the zoo.
    weights
        ``imagenet`` or a file.
    input_size
        Height and width in pixels; None for the network's own.
    precision
        As `--precision`.
    """

    model: str
    weights: str = "imagenet"
    input_size: int | None = None
    precision: str = "auto"

    @property
    def options(self) -> list[str]:
        """The options of `toolkit run`."""
        options = ["--model", self.model, "--weights", self.weights, "--precision", self.precision]
        size = [] if self.input_size is None else ["--input-size", str(self.input_size)]
        return options + size


@dataclass(frozen=True)
class Converted:
    """A converted network: its file, and what this machine computes it in."""

    file: str
    precision: str


EFFICIENTNET = Network("EfficientNetLite0")

RESNET50 = Network("ResNet50", weights=str(_RESNET50_WEIGHTS))
"""With random weights: the trained ones need a download, and speed does not depend on them."""


def resnet50_weights() -> Path:
    """Return the file that everybody loads ResNet50's weights from, written first if need be."""
    if not _RESNET50_WEIGHTS.exists():
        _run_this_module("--resnet50-weights", str(_RESNET50_WEIGHTS))
    return _RESNET50_WEIGHTS


@cache
def converted(network: Network, images: str) -> Converted:
    """Convert a network as a run on these images would, unless that was done before.

    In int8 the network depends on the images: its ranges are measured on some of them.
    """
    if network.weights == RESNET50.weights:
        resnet50_weights()
    said = _run_this_module("--network", json.dumps(asdict(network)), "--images", images)
    return Converted(**json.loads(said.splitlines()[-1]))


def _run_this_module(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.networks", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resnet50-weights", type=Path, metavar="FILE")
    parser.add_argument("--network", type=json.loads, metavar="JSON")
    parser.add_argument("--images", metavar="URI")
    arguments = parser.parse_args()
    if arguments.resnet50_weights:
        _write_resnet50_weights(arguments.resnet50_weights)
    if arguments.network:
        made = _convert(Network(**arguments.network), arguments.images)
        print(json.dumps(asdict(made)))


def _write_resnet50_weights(file: Path) -> None:
    from toolkit.models import model_spec, resolve_weights
    from toolkit.models.graph import build_network
    from toolkit.models.tensorflow_import import import_tensorflow

    import_tensorflow(keras_home=cache_folder() / "keras")
    import keras

    spec = model_spec("ResNet50")
    weights = resolve_weights(spec, "random:0", cache=cache_folder())
    featurizer, _ = build_network(spec, weights)
    backbone = next(layer for layer in featurizer.layers if isinstance(layer, keras.Model))
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    backbone.save_weights(unfinished)
    unfinished.replace(file)


def _convert(network: Network, images: str) -> Converted:
    from toolkit.cli.place import storage_of
    from toolkit.extraction import NetworkRequest, find_weights, prepare_network
    from toolkit.images.listing import list_images
    from toolkit.models import executed_precision
    from toolkit.storage import Location

    storage = storage_of("local")
    request = NetworkRequest(**asdict(network))
    listing = list_images(storage, Location.parse(images))
    weights = find_weights(request, storage)
    model, _ = prepare_network(request, weights, listing=listing, storage=storage)
    return Converted(str(Path(model.folder) / "model.xml"), executed_precision(model))


if __name__ == "__main__":
    _main()
