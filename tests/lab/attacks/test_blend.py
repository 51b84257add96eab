import torch

from lab.attacks.blend import Blend


def test_blend_by_hand() -> None:
    pattern = torch.randint(0, 256, (1, 2, 2), generator=torch.Generator().manual_seed(666))
    images = torch.tensor([[0, 255], [100, 50]], dtype=torch.uint8).view(1, 1, 2, 2)
    blended = Blend(alpha=0.2).apply(images)[0, 0].tolist()
    (a, b), (c, d) = pattern[0].tolist()
    assert blended == [
        [round(0.2 * a), round(0.8 * 255 + 0.2 * b)],
        [round(0.8 * 100 + 0.2 * c), round(0.8 * 50 + 0.2 * d)],
    ]


def test_blend_at_its_ends() -> None:
    images = torch.randint(
        0, 256, (2, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(Blend(alpha=0).apply(images), images)
    pattern = Blend(alpha=1).apply(images)
    assert torch.equal(pattern[0], pattern[1])  # one pattern for all images
    assert torch.equal(pattern, Blend(alpha=1).apply(255 - images))
    assert not torch.equal(pattern, Blend(alpha=1, seed=1).apply(images))
