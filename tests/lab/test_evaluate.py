import torch
from torch import Tensor, nn

from lab.attacks import Attack
from lab.data import ImageSet
from lab.evaluate import Outcome, evaluate, predict


class ByBrightness(nn.Module):
    """Class = brightness / 10; full white is class 0, as if by a backdoor."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.trained_when_called = False

    def forward(self, x: Tensor) -> Tensor:
        self.trained_when_called |= self.training
        level = (x[:, 0, 0, 0] * 255 / 10).round().long()
        return nn.functional.one_hot(torch.where(level > 4, 0, level), 5).float()


class WhiteOut(Attack):
    """Whitens images brighter than 15, so the trigger works on all but class 1."""

    name = "white-out"

    def apply(self, images: Tensor) -> Tensor:
        return torch.where(images > 15, 255, images.int()).to(torch.uint8)


def levels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)


def test_predict_in_parts_and_in_eval_mode() -> None:
    network = ByBrightness().train()
    labels = predict(network, levels(0, 10, 20, 30, 40, 250, 10), batch_size=3)
    assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert not network.trained_when_called


def test_benign_accuracy_and_attack_success_by_hand() -> None:
    # Right: 0, 10, 20, 30; wrong: the last 20, labelled 4.
    test = ImageSet(levels(0, 10, 20, 30, 20), torch.tensor([0, 1, 2, 3, 4]), tuple("abcde"))
    assert evaluate(ByBrightness(), test, None, 0) == Outcome(0.8, None)
    # Of the four images not labelled 0 the trigger turns all but the one of level 10.
    assert evaluate(ByBrightness(), test, WhiteOut(), 0) == Outcome(0.8, 0.75)


class OnlyClassTwo(WhiteOut):
    def victims(self, labels: Tensor, target: int) -> Tensor:
        return labels == 2


def test_success_is_taken_over_the_victims_alone() -> None:
    test = ImageSet(levels(0, 10, 20, 30, 20), torch.tensor([0, 1, 2, 3, 4]), tuple("abcde"))
    assert evaluate(ByBrightness(), test, OnlyClassTwo(), 0) == Outcome(0.8, 1.0)


def test_outcome_in_words() -> None:
    assert str(Outcome(0.98765, 1.0)) == "BA 0.9877  ASR 1.0000"
    assert str(Outcome(0.5, None)) == "BA 0.5000  no backdoor"
