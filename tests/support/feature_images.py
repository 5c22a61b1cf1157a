"""Images in the store, good and bad, and the computation of their features."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toolkit.features import Featurizer
from toolkit.folders import cache_folder
from toolkit.images.listing import ImageObject
from toolkit.models import model_spec, prepare, resolve_weights
from toolkit.parts import Part

if TYPE_CHECKING:
    from toolkit.storage import Storage


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(file, format="PNG")
    image = Image.new("RGB", (40, 30), colour)
    image.paste(Image.open(file), (0, 10))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    good = {f"good {index}.png": png((index * 5, 255 - index * 5, 128)) for index in range(40)}
    return good | {
        "truncated.jpg": good["good 3.png"][:90],
        "zero bytes.jpg": b"",
        "text.jpg": b"Hello, I am no image.",
    }


@pytest.fixture(scope="module")
def images(storage: Storage, contents: dict[str, bytes]) -> list[ImageObject]:
    folder = storage.location("test-features", "label")
    for name, content in contents.items():
        storage.write(folder / name, content)
    listed = [
        ImageObject((folder / name).uri, "label", len(content))
        for name, content in contents.items()
    ]
    return [*listed, ImageObject((folder / "gone.jpg").uri, "label", 9)]


@pytest.fixture(scope="module")
def featurizer(storage: Storage) -> Featurizer:
    spec = model_spec("EfficientNetLite0")
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    model = prepare(spec, weights, engine="openvino", precision="f32", cache=cache_folder())
    return Featurizer(model, storage, cache_folder())


def two_parts(images: list[ImageObject]) -> list[Part]:
    """Return parts that fill batches of two without the first image."""
    return [Part(0, tuple(images[:5])), Part(1, tuple(images[5:13]))]
