"""Both engines give the same features, for batches of any size, and load without TensorFlow."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import JobError, RequestError
from toolkit.folders import cache_folder
from toolkit.models import (
    MODELS,
    Engine,
    Precision,
    PreparedModel,
    executed_precision,
    load_engine,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.models.engines import _choose_batch_size, _choose_precision
from toolkit.models.torch_pickle import read_state_dict

DEFAULT = model_spec("EfficientNetLite0")
LEAST_COSINE: dict[Precision, float] = {"f32": 0.9999, "bf16": 0.999}


def prepared(name: str, *, cache: Path, weights: str = "imagenet", **options: Any) -> PreparedModel:
    spec = model_spec(name)
    found = resolve_weights(spec, weights, cache=cache)
    return prepare(spec, found, cache=cache, **({"precision": "f32"} | options))


@pytest.fixture(scope="module")
def default() -> PreparedModel:
    """Return the default model out of the user's cache: converted once a machine, not a session."""
    return prepared(DEFAULT.name, cache=cache_folder())


@pytest.fixture(scope="module")
def openvino(default: PreparedModel) -> Engine:
    return load_engine(default, threads=2)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_agreement(name: str, weights: str, images: np.ndarray, cache: Path) -> None:
    options = {"weights": weights, "input_size": images.shape[1:3]}
    model = prepared(name, cache=cache, engine="tensorflow", **options)
    reference = load_engine(model, threads=2).compute(images)
    # All features share a large part, which would hide differences: centred ones do not.
    centre = reference.mean(0)
    assert cosines(reference[:1], reference[3:4]).max() < 0.9999
    for precision in sorted({"f32", model_spec(name).fast_precision}):
        least = LEAST_COSINE[precision]
        model = prepared(name, cache=cache, precision=precision, **options)
        engine = load_engine(model, threads=2)
        features = engine.compute(images)
        # Without AVX-512 there is no bf16, not even emulated: f32 stands in for it, and says so.
        assert engine.precision == executed_precision(model)
        assert engine.precision in {precision, "f32"}
        assert features.shape == (len(images), model.dimensions)
        assert features.dtype == np.float32
        assert cosines(features, reference).min() >= least, precision
        if precision == "f32":
            assert cosines(features - centre, reference - centre).min() >= least


@pytest.mark.slow
def test_both_engines_give_the_default_model_the_same_features(model_cache, draw_fruit):
    check_agreement(DEFAULT.name, "imagenet", draw_fruit(DEFAULT.input_size), model_cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_both_engines_give_every_model_the_same_features(name, model_cache, draw_fruit):
    images = draw_fruit(model_spec(name).input_size)
    check_agreement(name, "random:0", images, model_cache)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        (DEFAULT.name, "imagenet", (100, 100)),
        (DEFAULT.name, "imagenet", (97, 128)),
        # Its padding depends on the size of its input.
        ("MobileNetV2", "random:0", (97, 128)),
    ],
)
def test_both_engines_agree_at_another_size(name, weights, size, model_cache, draw_fruit):
    check_agreement(name, weights, draw_fruit(size), model_cache)


def test_the_default_model_knows_drawn_fruit(model_cache, openvino, draw_fruit):
    """Its classifier, which features leave out, names what it sees: the weights sit where due."""
    tensors = read_state_dict(resolve_weights(DEFAULT, "imagenet", cache=model_cache).path)
    features = openvino.compute(draw_fruit(DEFAULT.input_size))
    scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    best = np.argsort(-scores, axis=1)[:, :3]
    banana, orange, lemon = 954, 950, 951
    assert all(banana in classes for classes in best[:3])
    assert all({orange, lemon} & set(classes) for classes in best[3:])


def test_an_image_has_the_same_features_in_whatever_company(openvino, draw_fruit):
    size = openvino.batch_size
    images = np.resize(draw_fruit(DEFAULT.input_size), (size + 3, *DEFAULT.input_size, 3))
    together = openvino.compute(images)
    np.testing.assert_array_equal(openvino.compute(images[:1]), together[:1])
    np.testing.assert_array_equal(openvino.compute(images[:size]), together[:size])
    np.testing.assert_array_equal(openvino.compute(images[::-1]), together[::-1])
    assert openvino.compute(images[:0]).shape == (0, DEFAULT.dimensions)


@pytest.mark.parametrize(
    ("precision", "size", "multiply_adds", "batch"),
    [
        ("f32", (224, 224), 0.4e9, 2),
        ("f32", (100, 100), 0.1e9, 10),
        ("auto", (100, 200), 0.2e9, 5),
        ("int8", (100, 100), 0.1e9, 20),
        ("f32", (224, 224), 3.9e9, 6),
        ("int8", (224, 224), 3.9e9, 4),
        ("f32", (32, 32), 0.01e9, 32),
        ("f32", (1024, 1024), 8e9, 1),
    ],
)
def test_the_smaller_the_images_the_more_are_computed_at_once(
    default, precision, size, multiply_adds, batch
):
    model = replace(default, precision=precision, input_size=size, multiply_adds=int(multiply_adds))
    assert _choose_batch_size(model) == batch


def test_images_that_are_a_view_have_the_same_features(openvino, draw_fruit):
    images = draw_fruit(DEFAULT.input_size)
    mirrored = images[:, :, ::-1]
    np.testing.assert_array_equal(openvino.compute(mirrored), openvino.compute(mirrored.copy()))


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 100, 100, 3), np.uint8)],
    ids=["float", "small"],
)
def test_images_of_another_type_or_size_are_refused(openvino, images):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 224, 224, 3\]"):
        openvino.compute(images)


@pytest.mark.parametrize(
    ("name", "precision", "capabilities", "used"),
    [
        ("Xception", "auto", ["FP32", "BF16"], "bf16"),
        ("Xception", "auto", ["FP32", "FP16"], "f32"),
        ("Xception", "f32", ["FP32", "BF16"], "f32"),
        (DEFAULT.name, "auto", ["FP32", "BF16"], "f32"),
        ("Xception", "int8", ["FP32", "BF16"], "int8"),
    ],
)
def test_auto_is_bf16_only_where_processor_and_network_bear_it(
    default, name, precision, capabilities, used
):
    model = replace(default, name=name, precision=precision)
    assert _choose_precision(model, capabilities) == used


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_precision_reported_is_the_one_the_network_computes_in(default, precision, draw_fruit):
    model = replace(default, precision=precision)
    engine = load_engine(model, threads=1)
    # A processor without AVX-512 does not even emulate bf16.
    assert engine.precision in {precision, "f32"}
    assert engine.precision == executed_precision(model)
    images = draw_fruit((224, 224))
    exact = load_engine(replace(default, precision="f32"), threads=1)
    assert np.array_equal(engine.compute(images), exact.compute(images)) == (
        engine.precision == "f32"
    )


def test_a_prepared_model_travels_and_says_what_it_is(default):
    assert pickle.loads(pickle.dumps(default)) == default
    assert len(pickle.dumps(default)) < 2_000
    folder = Path(default.folder)
    assert sorted(default.files) == sorted(path.name for path in folder.iterdir())
    assert folder.name == default.key
    record = json.loads((folder / "model.json").read_text())
    assert record["weights_sha256"] == default.weights_sha256
    assert f"sha256:{default.weights_sha256}" == DEFAULT.weights.checksum
    assert not default.random_weights


def test_a_missing_file_is_named(default, tmp_path):
    with pytest.raises(JobError, match=r"model\.bin"):
        load_engine(replace(default, folder=str(tmp_path)), threads=1)


@pytest.mark.parametrize(
    ("engine", "precision", "told"),
    [
        ("onnx", "f32", "no engine 'onnx'"),
        ("openvino", "int4", "no precision 'int4'"),
        ("tensorflow", "bf16", "has no bf16"),
        ("tensorflow", "int8", "has no int8"),
    ],
)
def test_an_impossible_engine_or_precision_is_refused(tmp_path, engine, precision, told):
    with pytest.raises(RequestError, match=told):
        prepared(DEFAULT.name, cache=tmp_path, engine=engine, precision=precision)


PREPARE = """
import sys
from pathlib import Path
import numpy as np
from toolkit.models import load_engine, model_spec, prepare, resolve_weights
spec, cache = model_spec("EfficientNetLite0"), Path(sys.argv[1])
model = prepare(spec, resolve_weights(spec, "imagenet", cache=cache), cache=cache)
features = load_engine(model, threads=1).compute(np.zeros((1, 224, 224, 3), np.uint8))
print(model.key, "tensorflow" in sys.modules, "openvino_telemetry.main" in sys.modules)
"""


def run_prepare(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREPARE, str(cache)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_model_that_is_prepared_needs_no_tensorflow(default):
    done = run_prepare(cache_folder(), HOME=os.environ["HOME"])
    assert done.stdout.split() == [default.key, "False", "False"]
    assert done.stderr == ""


@pytest.mark.slow
def test_a_conversion_is_silent_and_leaves_the_home_folder_alone(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    done = run_prepare(tmp_path / "cache", HOME=str(home))
    assert done.stdout.split()[1:] == ["True", "False"]
    assert done.stderr == ""
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_two_processes_may_prepare_the_same_model_at_once(tmp_path):
    command = [sys.executable, "-c", PREPARE, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    keys = {process.communicate()[0].split()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == list(keys)
