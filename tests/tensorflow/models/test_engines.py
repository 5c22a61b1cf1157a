"""Both engines give the same features, and TensorFlow is loaded for a conversion alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.engine_agreement import check_agreement, prepared
from toolkit.folders import cache_folder

DEFAULT = "EfficientNetLite0"


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        (DEFAULT, "imagenet", (100, 100)),
        # Its padding depends on the size of its input.
        ("MobileNetV2", "random:0", (97, 128)),
    ],
)
def test_both_engines_give_the_same_features(name, weights, size, model_cache, draw_fruit):
    check_agreement(name, weights, draw_fruit(size), model_cache)


# Pixels less the mean of each channel, in BGR; pixels between -1 and 1.
@pytest.mark.parametrize("name", ["ResNet50", "Xception"])
@pytest.mark.usefixtures("tiny_backbones")
def test_both_engines_preprocess_pixels_alike(name, tmp_path, draw_fruit):
    check_agreement(name, "random:0", draw_fruit((75, 97)), tmp_path)


PREPARE = """
import sys
from pathlib import Path
import numpy as np
from toolkit.models import load_engine, model_spec, prepare, resolve_weights
spec = model_spec("EfficientNetLite0")
for cache, size in zip(map(Path, sys.argv[1:]), (224, 64)):
    weights = resolve_weights(spec, "imagenet", cache=cache)
    model = prepare(spec, weights, input_size=size, cache=cache)
    load_engine(model, threads=1).compute(np.zeros((1, size, size, 3), np.uint8))
    print(model.key, "tensorflow" in sys.modules, "openvino_telemetry.main" in sys.modules)
"""


def test_a_conversion_alone_needs_tensorflow_is_silent_and_leaves_the_home_folder_alone(tmp_path):
    default = prepared(DEFAULT, cache=cache_folder())
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, cache_folder(), tmp_path / "cache"],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    found, converted = (line.split() for line in done.stdout.splitlines())
    assert found == [default.key, "False", "False"]
    assert converted[1:] == ["True", "False"]
    assert [path.name for path in (tmp_path / "cache" / "prepared").iterdir()] == converted[:1]
    assert done.stderr == ""
    assert list(home.iterdir()) == []
