"""How decoded pixels lie in memory."""

import numpy as np

from lab.planes import planes


def test_colour_and_grey_become_channels_first() -> None:
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert planes(colour).shape == (3, 2, 3)
    assert planes(colour)[2].tolist() == [[2, 5, 8], [11, 14, 17]]
    assert planes(colour[:, :, 0]).tolist() == [[[0, 3, 6], [9, 12, 15]]]


def test_a_batch_of_them_is_channels_first_in_memory() -> None:
    batch = np.stack([planes(np.zeros((4, 5, 3), dtype=np.uint8)) for _ in range(2)])
    assert batch.flags.c_contiguous
