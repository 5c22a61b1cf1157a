"""Networks of the zoo in SparkDL's stages, and as `keras.applications` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql.types import BinaryType, StructType

from tests.support.stages import computed
from toolkit.images.decode import decode_image
from toolkit.models import model_spec, resolve_weights, top_classes
from toolkit.models.tensorflow_import import import_tensorflow
from toolkit.sparkdl import DeepImageFeaturizer, DeepImagePredictor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTS = "random:3"
FILE = StructType().add("file", BinaryType())

MODULES = {
    "InceptionV3": "inception_v3",
    "Xception": "xception",
    "ResNet50": "resnet50",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "MobileNetV2": "mobilenet_v2",
}
"""Networks of Keras, and the modules of `keras.applications` with their preprocessing."""


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each row of one array to that of the other."""
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_against_plain_keras(name: str, length: int, *, files: list[bytes], cache: Path) -> None:
    """Compare features of a length, and predictions, with the network as Keras builds it.

    Keras' own preprocessing gets the same pixels. ``TOOLKIT_CACHE`` must be the folder `cache`.
    """
    import_tensorflow(keras_home=cache / "keras")
    import keras

    from toolkit.models.graph import build_network

    spec = model_spec(name)
    weights = resolve_weights(spec, WEIGHTS, head="classes", cache=cache)
    classifier = next(
        layer
        for layer in build_network(spec, weights, head="classes")[0].layers
        if isinstance(layer, keras.Model)
    )
    application = getattr(keras.applications, name)
    plain = application(weights=None)
    plain.set_weights(classifier.get_weights())
    headless = application(
        include_top=False,
        weights=None,
        input_shape=(*spec.input_size, 3),
        pooling="avg" if length == spec.dimensions else None,
    )
    headless.set_weights(plain.get_weights()[: len(headless.get_weights())])
    pixels = np.stack([decode_image(file, size=spec.input_size) for file in files])
    ready = getattr(keras.applications, MODULES[name]).preprocess_input(pixels.astype(np.float32))

    rows = [(file,) for file in files]
    stage = {"inputCol": "file", "modelName": name, "weights": WEIGHTS, "precision": "f32"}
    featurizer = DeepImageFeaturizer(outputCol="features", scaleHint="BILINEAR", **stage)
    features = np.stack([each.toArray() for each in computed(featurizer, rows, FILE)])
    expected = headless.predict(ready, verbose=0).reshape(len(files), -1)
    assert features.shape == (len(files), length) == expected.shape
    assert cosines(features, expected).min() > 0.9999

    predictor = DeepImagePredictor(outputCol="classes", **stage)
    probabilities = plain.predict(ready, verbose=0)
    found = np.stack([each.toArray() for each in computed(predictor, rows, FILE)])
    np.testing.assert_allclose(found, probabilities, atol=1e-4)
    decoded = computed(predictor.setDecodePredictions(value=True), rows, FILE)
    for classes, each in zip(decoded, probabilities, strict=True):
        assert classes[0].description == top_classes(each, count=1)[0].name
