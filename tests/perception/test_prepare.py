"""The one path from a delivered frame to the square a model sees."""

import numpy as np
import pytest

from foresight.contract import CameraContract
from foresight.perception import prepare

CAMERA = CameraContract("front", width=16, height=8, crop=(4, 0, 8, 8), size=4)


def test_prepared_pixel_is_the_mean_of_the_pixels_it_covers():
    """Cropping and shrinking by two averages each 2x2 square of the crop, and touches nothing outside it."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8)
    expected = image[:, 4:12].astype(float).reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    prepared = prepare(image, CAMERA)
    assert prepared.dtype == np.uint8 and prepared.shape == (4, 4, 3)
    assert np.abs(prepared - expected).max() <= 0.5
    image[:, :4] = 0
    assert (prepare(image, CAMERA) == prepared).all()


@pytest.mark.parametrize("shape", [(16, 8, 3), (8, 16), (8, 16, 4), (480, 640, 3)])
def test_wrong_size_is_refused_with_both_sizes(shape):
    """A frame of another size or channel count is named with what came and what is expected."""
    with pytest.raises(ValueError) as error:
        prepare(np.zeros(shape, np.uint8), CAMERA)
    assert str(shape) in str(error.value) and "(8, 16, 3)" in str(error.value) and "front" in str(error.value)


def test_wrong_number_type_is_refused():
    """Floats are not taken for 8-bit pixels."""
    with pytest.raises(ValueError, match=r"float32.*uint8"):
        prepare(np.zeros((8, 16, 3), np.float32), CAMERA)


def test_a_crop_outside_the_frame_is_refused():
    """A contract whose crop leaves the frame is an error, not a smaller picture."""
    with pytest.raises(ValueError, match="leaves the 16x8"):
        prepare(np.zeros((8, 16, 3), np.uint8), CameraContract("front", 16, 8, (10, 0, 8, 8), 4))
