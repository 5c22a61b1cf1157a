"""The large image: drawn, encoded and decoded, two seconds of a core."""

from benchmarks.images import LARGE, repeated_with_a_large_one
from toolkit.images.decode import decode_image


def test_the_large_image_has_40_megapixels_is_readable_and_in_the_bucket(storage):
    assert LARGE[0] * LARGE[1] == 40_000_000
    prefix = repeated_with_a_large_one(storage, 3)
    assert sum(1 for _ in storage.objects(prefix)) == 4
    stored = storage.read(prefix / "Large" / "large.jpg")
    assert decode_image(stored, size=(10, 16)).std() > 1
