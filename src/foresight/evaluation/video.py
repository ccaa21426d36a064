"""An episode as an mp4: what the cameras see, what was wanted, and what the model imagined.

The file is complete or absent.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from foresight.data import Plan
from foresight.files import write_atomically

PANEL = 256  # [px] side of one picture
BAR = 32  # [px] height of the captions
BACKGROUND, FOREGROUND, FAINT = (24, 26, 32), (235, 236, 240), (150, 154, 166)
GOOD, BAD = (96, 200, 130), (235, 110, 100)


class EpisodeVideo:
    """Encodes in memory and lands at `path` when it is left without an exception, unless it was discarded.

    A column each for now, goal and imagined; a row for each camera.
    """

    def __init__(self, path: Path, goal_images: dict[str, np.ndarray], frames_per_s: int = 10) -> None:
        self.path, self.cameras = path, tuple(goal_images)
        self._goal = {name: _panel(image) for name, image in goal_images.items()}
        self._imagined = {name: _empty("nothing imagined yet") for name in goal_images}
        self._file = BytesIO()
        self._wanted = True
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = self._container.add_stream(
            "libx264", rate=frames_per_s, options={"crf": "24", "preset": "veryfast", "threads": "1"}
        )
        self._stream.width, self._stream.height = 3 * PANEL, len(self.cameras) * PANEL + 2 * BAR
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> "EpisodeVideo":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._wanted:
            self._container.mux(self._stream.encode())
            self._container.close()
            write_atomically(self.path, self._file.getvalue())
        else:
            self._container.close()

    def discard(self) -> None:
        """Leaves no file."""
        self._wanted = False

    def add(
        self,
        images: dict[str, np.ndarray],
        imagined: UInt8[np.ndarray, "C h w 3"] | None,
        line: str,
        imagined_s: float = 0.0,
        success: bool = False,
    ) -> None:
        """One frame. `imagined` is what the model foresees `imagined_s` ahead, cameras in the goal images' order; None
        keeps the picture before."""
        if imagined is not None:
            self._imagined = {name: _panel(picture) for name, picture in zip(self.cameras, imagined, strict=True)}
        ahead = f"imagined, {imagined_s:.1f} s ahead" if imagined_s else "imagined"
        rows = [np.hstack([_panel(images[name]), self._goal[name], self._imagined[name]]) for name in self.cameras]
        header = np.hstack([_caption("camera now"), _caption("goal"), _caption(ahead)])
        footer = np.full((BAR, 3 * PANEL, 3), BACKGROUND, np.uint8)
        _text(footer, line, (10, 21), GOOD if success else FOREGROUND)
        picture = np.ascontiguousarray(np.vstack([header, *rows, footer]))
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))


def imagined_pictures(model: Any, plan: Plan) -> UInt8[np.ndarray, "C h w 3"] | None:
    """What the plan's last imagined latent looks like to the decoder of `model`, a WorldModel; None: nothing was imagined."""
    import torch

    if not len(plan.imagined):
        return None
    return model.decode(torch.from_numpy(np.ascontiguousarray(plan.imagined[-1:])))[0]


def episode_line(task: str, elapsed_s: float, distance_m: float, plan: Plan | None, success: bool) -> str:
    """The line under the pictures."""
    what = "tip" if task == "reach" else "cube"
    thought = f"   {plan.distance:.1f} s to go, cost {plan.cost:.2f}, by {plan.source}" if plan is not None else ""
    return (
        f"{task}   {elapsed_s:5.1f} s   {what} {100 * distance_m:4.1f} cm from its goal{thought}{'   REACHED' if success else ''}"
    )


def _panel(image: np.ndarray) -> np.ndarray:
    """A picture fitted into the square panel, keeping its shape."""
    height, width = image.shape[:2]
    scale = PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    fitted = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    panel = np.full((PANEL, PANEL, 3), BACKGROUND, np.uint8)
    top, left = (PANEL - size[1]) // 2, (PANEL - size[0]) // 2
    panel[top : top + size[1], left : left + size[0]] = fitted
    return panel


def _empty(words: str) -> np.ndarray:
    panel = np.full((PANEL, PANEL, 3), BACKGROUND, np.uint8)
    _text(panel, words, (40, PANEL // 2), FAINT)
    return panel


def _caption(words: str) -> np.ndarray:
    bar = np.full((BAR, PANEL, 3), BACKGROUND, np.uint8)
    _text(bar, words, (10, 21), FAINT)
    return bar


def _text(picture: np.ndarray, words: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    ascii_only = words.encode("ascii", "replace").decode()  # OpenCV's built-in font knows no more
    cv2.putText(picture, ascii_only, at, cv2.FONT_HERSHEY_SIMPLEX, 0.48, colour, 1, cv2.LINE_AA)
