"""int8 stays near to f32, is the same everywhere and every time, and tells nobody."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.engine_agreement import cosines, prepared
from tests.support.quantized import (
    DEFAULT,
    Pair,
    check_features_of_int8,
    quantized_pair,
    training_images,
)
from tests.support.tiny_network import convert_to_tiny
from toolkit.models import (
    Calibration,
    PreparedModel,
    executed_precision,
    load_engine,
    measure_fidelity,
)
from toolkit.models import prepared as module
from toolkit.models.openvino_import import import_openvino


@pytest.fixture(scope="module")
def pair(model_cache: Path) -> Pair:
    return quantized_pair(100, cache=model_cache)


def test_int8_stays_near_to_f32_and_tells_the_sample_images_apart_as_well(pair):
    check_features_of_int8(pair)


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
def test_int8_is_the_same_on_processors_without_vnni(pair):
    """Full 8-bit weights overflow there: cosines of 0.69 to 0.86 where these have 1."""
    images = training_images(pair.int8.input_size, 32)
    done = subprocess.run(
        [sys.executable, "-c", FEATURES],
        input=pickle.dumps((pair.int8, images)),
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        stdout=subprocess.PIPE,
        check=True,
    )
    with_all = load_engine(pair.int8, threads=2).compute(images)
    assert cosines(pickle.loads(done.stdout), with_all).min() > 0.9999


def test_a_network_of_another_family_can_be_quantized(model_cache):
    """Features of random weights are chaotic: this is no price, only a sign of life."""
    few = Calibration(identity="few", images=lambda size: training_images(size, 16))
    options = {"weights": "random:0", "input_size": (97, 128), "cache": model_cache}
    f32 = prepared("MobileNetV2", **options)
    int8 = prepared("MobileNetV2", precision="int8", calibration=few, **options)
    fidelity = measure_fidelity(int8, f32, lambda size: training_images(size, 16))
    assert fidelity.least > 0.85
    assert fidelity.centred > 0.25


# What follows is about the files, not the features: a tiny network has the default one's name.
SIZE = 100


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedModel:
    """Return a tiny network in f32, in a cache of its own."""
    monkeypatch.setattr(module, "convert", convert_to_tiny)
    return prepared(DEFAULT, cache=tmp_path / "cache", input_size=SIZE)


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, *size, 3), dtype=np.uint8)


CALIBRATION = Calibration(identity="noise", images=noise)


def quantize(cache: Path, calibration: Calibration = CALIBRATION) -> PreparedModel:
    options = {"input_size": SIZE, "calibration": calibration, "cache": cache}
    return prepared(DEFAULT, precision="int8", **options)


def content(model: PreparedModel) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(model.folder).iterdir()}


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


def test_to_quantize_is_silent_reaches_nobody_and_gives_the_same_bytes_as_here(tiny, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    cache = Path(tiny.folder).parents[1]
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
    assert {path.name for path in (cache / "prepared").iterdir()} == {tiny.key, told["key"]}
    # In another process as in this one, where made-up names count on from the networks before.
    elsewhere = replace(tiny, folder=str(cache / "prepared" / told["key"]))
    for name in ("one", "other"):
        prepared(DEFAULT, cache=tmp_path / name, input_size=SIZE)
        assert content(quantize(tmp_path / name)) == content(elsewhere)


def test_images_are_asked_for_only_to_quantize(tiny):
    def images(size: tuple[int, int]) -> np.ndarray:
        raise AssertionError("asked again")

    cache = Path(tiny.folder).parents[1]
    first = quantize(cache)
    assert quantize(cache, replace(CALIBRATION, images=images)) == first
