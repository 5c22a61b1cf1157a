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


@pytest.mark.parametrize(
    ("asked", "given"), [(None, (224, 224)), (100, (100, 100)), ((64, 1024), (64, 1024))]
)
def test_a_network_takes_images_of_any_size_it_bears(asked, given):
    assert model_spec(DEFAULT_MODEL).resolve_size(asked) == given


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        (
            DEFAULT_MODEL,
            31,
            "EfficientNetLite0 takes images of 32 to 1024 pixels a side, not 31x31",
        ),
        ("InceptionV3", (75, 74), "75 to 1024 pixels a side, not 75x74"),
        ("Xception", 70, "71 to 1024"),
        ("ResNet50", 1025, "32 to 1024 pixels a side, not 1025x1025"),
        ("ResNet50", 0, "not 0x0"),
        ("VGG16", -5, "not -5x-5"),
    ],
)
def test_a_size_that_a_network_does_not_bear_is_refused_with_the_range(name, asked, told):
    with pytest.raises(RequestError, match=told):
        model_spec(name).resolve_size(asked)
