import pytest
import torch

from lab.attacks import ATTACKS, Attack

NEEDS_NO_PREPARATION = sorted(n for n, kind in ATTACKS.items() if kind.prepared is Attack.prepared)


@pytest.mark.parametrize("name", NEEDS_NO_PREPARATION)
def test_every_attack_keeps_its_promises(name: str) -> None:
    attack = ATTACKS[name]()
    images = torch.randint(
        0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    before = images.clone()
    triggered = attack.apply(images)
    assert attack.name == name
    assert (triggered.shape, triggered.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert torch.equal(triggered, ATTACKS[name]().apply(images))
    assert (triggered != images).flatten(1).any(1).all()
