"""Red where the label comes from."""

import io

import numpy as np
from PIL import Image

from app.console.heat import SIDE, heat_picture


def drawn(sensitivity: np.ndarray) -> np.ndarray:
    picture = Image.open(io.BytesIO(heat_picture(np.full((3, 32, 32), 0.5, np.float32), sensitivity)))
    assert (picture.mode, picture.size) == ("RGB", (SIDE, SIDE))
    return np.asarray(picture).astype(int)


def test_the_place_that_counts_is_red_and_the_others_are_grey() -> None:
    found = np.zeros((7, 7))
    found[6, 6] = 4.0
    picture = drawn(found)
    redness = picture[..., 0] - picture[..., 1]
    assert redness[-16:, -16:].mean() > 100
    assert np.abs(redness[:128, :128]).max() <= 6  # the interpolation's overshoot


def test_a_map_of_next_to_nothing_stays_grey() -> None:
    picture = drawn(np.full((7, 7), 0.01))
    assert np.abs(picture - 128).max() <= 4
    assert np.abs(drawn(np.zeros((7, 7))) - 128).max() <= 1
