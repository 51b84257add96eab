"""Lanes: how many, on how many cores each, and whether a batch of one meets that of another."""

import threading
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from app.lanes import MOST, divide_cores, lanes_for
from app.settings import Settings
from detectors.packing import pack_network
from models.base import Classifier
from models.loading import load_network
from models.torch_module import TorchClassifier

DEMO = Path(__file__).parents[2] / "models" / "demo"


def demo() -> TorchClassifier:
    classifier = load_network(DEMO, torch.device("cpu"))
    assert isinstance(classifier, TorchClassifier)
    return classifier


def test_a_traced_network_has_one_for_each_core_and_four_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = demo()
    assert lanes_for(classifier) == 1  # not packed: it is the network's own code that runs
    assert lanes_for(classifier, 8) == 1
    classifier.runner = pack_network(classifier.network, torch.rand(2, 1, 28, 28))
    for cores, lanes in ((1, 1), (2, 2), (64, MOST)):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        assert lanes_for(classifier) == lanes
    assert lanes_for(classifier, 8) == 8


def test_what_does_not_run_here_has_one() -> None:
    assert lanes_for(cast(Classifier, nn.Identity()), 8) == 1


@pytest.mark.parametrize(("cores", "lanes", "each"), [(8, 2, 4), (3, 2, 1), (2, 4, 1)])
def test_a_lane_has_its_share_of_the_cores_and_no_other_has_less(cores: int, lanes: int, each: int) -> None:
    before = torch.get_num_threads()
    together, found = threading.Barrier(lanes), list[int]()

    def lane() -> None:
        together.wait(10)  # as they begin in a gateway
        divide_cores(cores, lanes)
        found.append(torch.get_num_threads())

    def other() -> None:
        found.append(torch.get_num_threads())

    torch.set_num_threads(cores)
    try:
        for targets in ([lane] * lanes, [other]):
            threads = [threading.Thread(target=target) for target in targets]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert found == [*[each] * lanes, cores]
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


def test_the_setting_is_a_positive_number(tmp_path: Path) -> None:
    assert Settings(bundle=tmp_path).lanes is None
    with pytest.raises(ValueError, match="lanes"):
        Settings(bundle=tmp_path, lanes=0)
