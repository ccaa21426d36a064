"""From a delivered camera frame to the square a model sees: check, crop, shrink.

The one code path for collection, training and operation. Knows no clock, no topics, no model; repairs nothing.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from foresight.contract import CameraContract


def prepare(image: np.ndarray, camera: CameraContract) -> UInt8[np.ndarray, "size size 3"]:
    """The RGB frame cut to the camera's crop and shrunk by area averaging.

    A frame of another size, channel count or number type than the contract's is refused with a ValueError.
    """
    if image.shape != (camera.height, camera.width, 3):
        raise ValueError(
            f"Camera '{camera.name}' delivered a frame of shape {image.shape}; the model expects "
            f"{(camera.height, camera.width, 3)} (height, width, RGB). Set the camera to {camera.width}x{camera.height} px, "
            "colour."
        )
    if image.dtype != np.uint8:
        raise ValueError(
            f"Camera '{camera.name}' delivered numbers of type {image.dtype}; the model expects uint8. Use an 8-bit RGB encoding."
        )
    x, y, width, height = camera.crop
    if x < 0 or y < 0 or x + width > camera.width or y + height > camera.height:
        raise ValueError(
            f"Camera '{camera.name}': crop {camera.crop} (x, y, width, height) leaves the {camera.width}x{camera.height} px "
            "frame."
        )
    return cv2.resize(image[y : y + height, x : x + width], (camera.size, camera.size), interpolation=cv2.INTER_AREA)
