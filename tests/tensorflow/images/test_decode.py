"""Pixels as Keras gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from toolkit.images.decode import decode_image


@pytest.mark.filterwarnings("default")  # TensorFlow's own
def test_pixels_equal_those_of_keras(tmp_path: Any) -> None:
    from keras.utils import img_to_array, load_img

    photo = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo, quality=90)
    expected = img_to_array(load_img(photo, target_size=(224, 224), interpolation="bilinear"))
    assert_array_equal(decode_image(photo.read_bytes(), size=(224, 224)), expected)
