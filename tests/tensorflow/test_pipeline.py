"""Runs whose network has to be converted at another size, or quantized."""

from __future__ import annotations

from tests.support.runs import launch

__all__ = ["launch"]


def test_smaller_images_and_int8_say_their_price(launch, mixed_folder, record) -> None:
    small = launch(mixed_folder, input_size=96)
    assert (small.input_size, small.precision) == ((96, 96), record.precision)
    assert small.fidelity["images"] == 24
    assert 0 < small.fidelity["least"] <= small.fidelity["mean"] < 0.99

    int8 = launch(mixed_folder, precision="int8")
    assert (int8.input_size, int8.precision) == ((224, 224), "int8")
    assert 0.98 < int8.fidelity["least"] <= int8.fidelity["mean"] < 1
    assert len({record.fingerprint, small.fingerprint, int8.fingerprint}) == 3
