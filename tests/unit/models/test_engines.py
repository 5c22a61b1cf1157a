"""OpenVINO gives features for batches of any size; sizes and precisions are chosen as measured."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toolkit.errors import JobError, RequestError
from toolkit.folders import cache_folder
from toolkit.models import (
    Engine,
    PreparedModel,
    executed_precision,
    load_engine,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.models.engines import _choose_batch_size, _choose_precision
from toolkit.models.torch_pickle import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = model_spec("EfficientNetLite0")


def prepare_default(*, cache: Path, **options: Any) -> PreparedModel:
    weights = resolve_weights(DEFAULT, "imagenet", cache=cache)
    return prepare(DEFAULT, weights, cache=cache, **({"precision": "f32"} | options))


@pytest.fixture(scope="module")
def default() -> PreparedModel:
    """Return the default model out of the user's cache: converted once a machine, not a session."""
    return prepare_default(cache=cache_folder())


@pytest.fixture(scope="module")
def openvino(default: PreparedModel) -> Engine:
    return load_engine(default, threads=2)


@pytest.fixture(scope="module")
def fruit(draw_fruit: Callable[..., np.ndarray]) -> np.ndarray:
    """Return three bananas and three oranges at the default size."""
    return draw_fruit(DEFAULT.input_size)


def test_the_default_model_knows_drawn_fruit(openvino, fruit, tmp_path):
    """Its classifier, which features leave out, names what it sees: the weights sit where due."""
    tensors = read_state_dict(resolve_weights(DEFAULT, "imagenet", cache=tmp_path).path)
    features = openvino.compute(fruit)
    scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    best = np.argsort(-scores, axis=1)[:, :3]
    banana, orange, lemon = 954, 950, 951
    assert all(banana in classes for classes in best[:3])
    assert all({orange, lemon} & set(classes) for classes in best[3:])


def test_an_image_has_the_same_features_in_whatever_company(openvino, fruit):
    size = openvino.batch_size
    images = np.resize(fruit, (size + 3, *DEFAULT.input_size, 3))
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


def test_images_that_are_a_view_have_the_same_features(openvino, fruit):
    mirrored = fruit[:2, :, ::-1]
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


def test_the_precision_reported_is_the_one_the_network_computes_in(default, openvino, fruit):
    assert openvino.precision == executed_precision(default) == "f32"
    model = replace(default, precision="bf16")
    engine = load_engine(model, threads=2)
    # A processor without AVX-512 does not even emulate bf16.
    assert engine.precision in {"bf16", "f32"}
    assert engine.precision == executed_precision(model)
    same = np.array_equal(engine.compute(fruit[2:4]), openvino.compute(fruit[2:4]))
    assert same == (engine.precision == "f32")


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
        prepare_default(cache=tmp_path, engine=engine, precision=precision)
