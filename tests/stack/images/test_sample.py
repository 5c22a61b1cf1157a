"""Decoded pixels of a few images of a listing."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.images.decode import decode_image
from toolkit.images.listing import list_images
from toolkit.images.sample import ImageSample, read_from


@pytest.fixture
def folder(storage, sample_files, bad_files):
    """Return a folder of six good images and three bad ones."""
    folder = storage.location("test-sample", "label")
    for file in sample_files[:6]:
        storage.write(folder / f"{file.parent.name} {file.name}", file.read_bytes())
    for name, content in bad_files.items():
        storage.write(folder / name, content)
    yield folder
    storage.delete_all(folder)


def test_pixels_of_the_readable_images_come_in_order_at_the_size_asked_for(
    storage, folder, sample_files
) -> None:
    sample = ImageSample(read_from(storage), list_images(storage, folder))
    pixels = sample((30, 20))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (6, 30, 20, 3))
    expected = [
        decode_image(file.read_bytes(), size=(30, 20))
        for file in sorted(sample_files[:6], key=lambda file: f"{file.parent.name} {file.name}")
    ]
    np.testing.assert_array_equal(pixels, expected)


def test_no_readable_image_gives_no_pixels(storage, folder, sample_files) -> None:
    for file in sample_files[:6]:
        storage.delete_all(folder / f"{file.parent.name} {file.name}")
    assert ImageSample(read_from(storage), list_images(storage, folder))((30, 20)).shape == (
        0,
        30,
        20,
        3,
    )


def test_identity_follows_the_images(storage, folder) -> None:
    listing = list_images(storage, folder)
    identity = ImageSample(read_from(storage), listing).identity
    assert ImageSample(read_from(storage), list_images(storage, folder)).identity == identity
    assert ImageSample(read_from(storage), listing.evenly_spaced(3)).identity != identity
