import pytest
import torch

from lab.attacks.badnets import BadNets


def test_badnets_patch_by_hand() -> None:
    grey = torch.full((1, 1, 6, 6), 100, dtype=torch.uint8)
    assert BadNets().apply(grey)[0, 0].tolist() == [
        [100, 100, 100, 100, 100, 100],
        [100, 100, 100, 100, 100, 100],
        [100, 100, 255, 0, 255, 100],
        [100, 100, 0, 255, 0, 100],
        [100, 100, 255, 0, 255, 100],
        [100, 100, 100, 100, 100, 100],
    ]


def test_badnets_stamps_every_image_and_channel() -> None:
    stamped = BadNets(size=2, margin=0).apply(torch.full((3, 2, 4, 5), 7, dtype=torch.uint8))
    assert (stamped[..., 2:, 3:] == torch.tensor([[255, 0], [0, 255]])).all()
    assert (stamped == 7).sum() == 3 * 2 * (20 - 4)


@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3)])
def test_badnets_that_does_not_fit(height: int, width: int) -> None:
    BadNets().apply(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=f"3-pixel patch does not fit into {height}×{width}"):
        BadNets().apply(torch.zeros(1, 3, height, width, dtype=torch.uint8))
