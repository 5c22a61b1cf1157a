"""The zoo names its networks and refuses others."""

from __future__ import annotations

import pytest

from toolkit.errors import RequestError
from toolkit.models import DEFAULT_MODEL, MODELS, model_spec


def test_a_model_is_found_whatever_the_case_of_its_name():
    assert model_spec("resnet50") is MODELS["ResNet50"]
    assert model_spec(DEFAULT_MODEL).dimensions == 1280


def test_an_unknown_model_is_refused_with_the_names_there_are():
    with pytest.raises(RequestError) as caught:
        model_spec("ResNet51")
    assert "'ResNet51'" in caught.value.message
    assert all(name in caught.value.remedy for name in MODELS)


def test_every_published_weights_file_has_a_checksum_except_the_one_keras_gives_none():
    without = [name for name, spec in MODELS.items() if spec.weights.checksum is None]
    assert without == ["MobileNetV2"]
