import pytest
import torch

from lab.attacks import issba
from lab.attacks.issba import Issba
from lab.data import ImageSet
from tests.lab.attacks.bars import CPU, bars, farthest

SMALL = Issba(bits=4, strength=20, steps=10)


@pytest.fixture(scope="module")
def ready() -> Issba:
    return SMALL.prepared(bars(20), 1, 0, CPU)


def test_the_noise_keeps_its_bound_and_is_each_images_own(ready: Issba) -> None:
    middle = (bars(3).images.float() * 0.5 + 60).to(torch.uint8)  # far from 0 and 255
    triggered = ready.apply(middle)
    assert triggered.dtype == torch.uint8
    assert 0 < farthest(triggered, middle) <= 20
    noise = triggered.int() - middle.int()
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(ready.apply(middle[:2]), triggered[:2])
    assert ready.apply(middle[:0]).shape == (0, 3, 12, 12)


def test_another_message_is_another_trigger(ready: Issba) -> None:
    images = bars(3).images
    tensors = dict(ready.tensors())
    tensors["message"] = 1 - tensors["message"]
    assert not torch.equal(ready.restored(tensors).apply(images), ready.apply(images))


def test_the_seed_and_the_tensors_give_it_again(ready: Issba) -> None:
    data = bars(20)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = SMALL.prepared(data, 1, 0, CPU)
    assert torch.equal(ready.restored(again.tensors()).apply(data.images), ready.apply(data.images))
    assert torch.equal(torch.get_rng_state(), state)
    other = SMALL.prepared(data, 1, 1, CPU)
    assert not torch.equal(other.apply(data.images), ready.apply(data.images))
    assert ready.settings() == {"bits": 4, "strength": 20, "invisibility": 0.02, "steps": 10}


def test_it_learns_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder is thrown away after the training; here it is caught and reads 9 bits of 10."""
    caught, build = [], issba._decoder
    monkeypatch.setattr(issba, "_decoder", lambda *sizes: caught.append(build(*sizes)) or caught[0])
    data = bars(30)
    learnt = Issba(bits=4, strength=60, steps=60).prepared(data, 1, 0, CPU)
    with torch.inference_mode():
        read = caught[0].eval()(learnt.apply(data.images).float() / 255) > 0
    assert (read == learnt.tensors()["message"].bool()).float().mean() > 0.9


def test_poison_is_dirty_label_and_counted(ready: Issba) -> None:
    data = bars(20)
    poisoned = ready.poison(data, 1, 0.25, 0)
    assert len(poisoned.triggered) == 15
    assert (poisoned.data.labels[poisoned.triggered] == 1).all()
    assert torch.equal(poisoned.data.images[poisoned.triggered], ready.apply(data.images[poisoned.triggered]))


def test_what_it_cannot_do(ready: Issba) -> None:
    grey = ImageSet(bars(4).images[:, :1], bars(4).labels, bars(4).classes)
    with pytest.raises(ValueError, match="a trigger for 3 channels does not fit images of 1"):
        ready.apply(grey.images)
    with pytest.raises(ValueError, match="issba learns its trigger from images: prepare it first"):
        SMALL.apply(grey.images)
    assert SMALL.prepared(grey, 0, 0, CPU).apply(grey.images).shape == grey.images.shape
