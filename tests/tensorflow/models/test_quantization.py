"""int8 stays near to f32, is the same everywhere and every time, and tells nobody."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support import CHECKOUT
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import (
    CALIBRATION_IMAGES,
    Calibration,
    PreparedModel,
    executed_precision,
    load_engine,
    measure_fidelity,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.models.openvino_import import import_openvino

# To quantize takes seconds, and TensorFlow where the f32 network is not in the user's cache yet.
pytestmark = pytest.mark.slow

SPEC = model_spec("EfficientNetLite0")
SAMPLES = CHECKOUT / "sample_images"


def files(part: str) -> list[Path]:
    return sorted((SAMPLES / part).glob("*/*.jpg"))


def decoded(paths: list[Path], size: tuple[int, int]) -> np.ndarray:
    return np.stack([decode_image(path.read_bytes(), size=size) for path in paths])


def some_training_images(size: tuple[int, int], count: int = CALIBRATION_IMAGES) -> np.ndarray:
    paths = files("Training")
    return decoded([paths[i * len(paths) // count] for i in range(count)], size)


CALIBRATION = Calibration(identity="sample images", images=some_training_images)


@dataclass
class Pair:
    """The default network in f32 and in int8, at one size."""

    f32: PreparedModel
    int8: PreparedModel


@pytest.fixture(scope="module", params=[224, 100])
def pair(request: pytest.FixtureRequest, model_cache: Path) -> Pair:
    """Quantize anew, from f32 out of the user's cache: converted once a machine."""
    weights = resolve_weights(SPEC, "imagenet", cache=model_cache)
    size = request.param
    f32 = prepare(SPEC, weights, precision="f32", input_size=size, cache=cache_folder())
    copy = model_cache / "prepared" / f32.key
    if not copy.exists():
        shutil.copytree(f32.folder, copy)
    int8 = prepare(
        SPEC,
        weights,
        precision="int8",
        input_size=size,
        calibration=CALIBRATION,
        cache=model_cache,
    )
    return Pair(f32, int8)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_int8_stays_near_to_f32_and_tells_the_sample_images_apart_as_well(pair):
    """Measured at 224 and 100 pixels: cosines from 0.991 and 0.981, every test image right."""
    features = {}
    for model in (pair.f32, pair.int8):
        engine = load_engine(model, threads=2)
        features[engine.precision] = [
            engine.compute(decoded(files(part), engine.input_size)) for part in ("Training", "Test")
        ]
    training, test = [[path.parent.name for path in files(part)] for part in ("Training", "Test")]
    near = cosines(np.concatenate(features["int8"]), np.concatenate(features["f32"]))
    assert near.min() > 0.97
    assert np.median(near) > 0.994
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    for seen, unseen in features.values():
        assert probe.fit(seen, training).score(unseen, test) > 0.98


def test_most_of_the_network_runs_in_8_bits(pair):
    assert executed_precision(pair.int8) == "int8"
    assert load_engine(pair.int8, threads=1).precision == "int8"
    core = import_openvino().Core()
    network = core.read_model(Path(pair.int8.folder) / "model.xml")
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    kinds = [
        each["primitiveType"].astype(str)
        for each in told
        if each["layerType"].astype(str) == "Convolution"
    ]
    assert sum(kind.endswith("I8") for kind in kinds) == 46
    assert sum(kind.endswith("f32") for kind in kinds) == 3


FEATURES = """
import pickle, sys
from toolkit.models import load_engine
model, images = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(load_engine(model, threads=2).compute(images)))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the instruction sets are x86's")
def test_int8_is_the_same_on_processors_without_vnni(pair, tmp_path):
    """Full 8-bit weights overflow there: cosines of 0.69 to 0.86 where these have 1."""
    import pickle

    images = some_training_images(pair.int8.input_size, 32)
    features = []
    for instructions in ("ALL", "AVX2"):
        done = subprocess.run(
            [sys.executable, "-c", FEATURES],
            input=pickle.dumps((pair.int8, images)),
            env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
            stdout=subprocess.PIPE,
            check=True,
        )
        features.append(pickle.loads(done.stdout))
    assert cosines(*features).min() > 0.9999


QUANTIZE = """
import os, sys
from pathlib import Path

reached, written = [], []

def note(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib", "http")):
        reached.append(event)
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.append(os.fsdecode(arguments[0]))

sys.addaudithook(note)
import numpy as np
from toolkit.models import Calibration, model_spec, prepare, resolve_weights

def images(size):
    return np.random.default_rng(0).integers(0, 256, (8, *size, 3), dtype=np.uint8)

spec, cache = model_spec("EfficientNetLite0"), Path(sys.argv[1])
weights = resolve_weights(spec, "imagenet", cache=cache)
calibration = Calibration(identity="noise", images=images)
import logging
before = logging.getLoggerClass()
model = prepare(
    spec, weights, precision="int8", input_size=100, calibration=calibration, cache=cache
)
import json
print(json.dumps({
    "key": model.key,
    "reached": reached,
    "written": [path for path in written if path != "/dev/null"],
    "telemetry": "openvino_telemetry.main" in sys.modules,
    "tensorflow": "tensorflow" in sys.modules,
    "logging": logging.getLoggerClass() is before,
}))
"""


def copied_cache(root: Path, f32: PreparedModel) -> Path:
    shutil.copytree(f32.folder, root / "prepared" / f32.key)
    return root


@pytest.fixture(scope="module")
def small() -> PreparedModel:
    weights = resolve_weights(SPEC, "imagenet", cache=cache_folder())
    return prepare(SPEC, weights, precision="f32", input_size=100, cache=cache_folder())


def test_to_quantize_is_silent_reaches_nobody_and_writes_only_into_the_cache(small, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    cache = copied_cache(tmp_path / "cache", small)
    done = subprocess.run(
        [sys.executable, "-c", QUANTIZE, str(cache)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)  # nothing else is on stdout
    assert told["reached"] == []
    assert [path for path in told["written"] if not path.startswith(str(cache))] == []
    assert not told["telemetry"]
    assert not told["tensorflow"]
    assert told["logging"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "home"]
    assert list(home.iterdir()) == []
    assert len(list((cache / "prepared").iterdir())) == 2


def test_the_same_images_give_the_same_bytes(small, tmp_path):
    """In the same process as in another one, where made-up names would count on or start anew."""
    digests = []
    for name in ("one", "two", "three"):
        cache = copied_cache(tmp_path / name, small)
        if name == "three":
            subprocess.run(
                [sys.executable, "-c", QUANTIZE, str(cache)], check=True, stdout=subprocess.DEVNULL
            )
        else:
            prepare_noise(cache)
        (folder,) = (cache / "prepared").glob("*int8*")
        digests.append(
            {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        )
    assert all(one == other for one, other in pairwise(digests))


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, *size, 3), dtype=np.uint8)


def prepare_noise(cache: Path) -> PreparedModel:
    weights = resolve_weights(SPEC, "imagenet", cache=cache)
    calibration = Calibration(identity="noise", images=noise)
    return prepare(
        SPEC, weights, precision="int8", input_size=100, calibration=calibration, cache=cache
    )


def test_images_are_asked_for_only_to_quantize(pair, model_cache):
    def images(size: tuple[int, int]) -> np.ndarray:
        raise AssertionError("asked again")

    again = prepare(
        SPEC,
        resolve_weights(SPEC, "imagenet", cache=model_cache),
        precision="int8",
        input_size=pair.int8.input_size,
        calibration=replace(CALIBRATION, images=images),
        cache=model_cache,
    )
    assert again == pair.int8


def test_a_network_of_another_family_can_be_quantized(model_cache):
    """Features of random weights are chaotic: this is no price, only a sign of life."""
    spec = model_spec("ResNet50")
    weights = resolve_weights(spec, "random:0", cache=model_cache)
    few = replace(CALIBRATION, images=lambda size: some_training_images(size, 16))
    options = {"input_size": 64, "cache": model_cache}
    f32 = prepare(spec, weights, precision="f32", **options)
    int8 = prepare(spec, weights, precision="int8", calibration=few, **options)
    fidelity = measure_fidelity(int8, f32, lambda size: some_training_images(size, 16))
    assert fidelity.least > 0.85
    assert fidelity.centred > 0.25
