import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.batches import Batch, TrainingSet
from lab.data import ImageSet
from lab.run import TrainingRun
from lab.settings import TrainSettings

SETTINGS = TrainSettings(name="x", epochs=4, batch_size=5, objective="psc1", objective_weight=0.4)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (4, 0.2), (8, 0.4), (15, 0.4)])
def test_the_objective_gains_weight_over_the_first_half(step: int, weight: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    images = torch.randint(0, 256, (20, 3, 2, 2), dtype=torch.uint8)
    data = TrainingSet.clean(ImageSet(images, torch.arange(20) % 2, ("a", "b")))
    asked = []

    def objective(_batch: Batch, number: int) -> torch.Tensor:
        asked.append(number)
        return torch.tensor(100.0)

    run = TrainingRun(network, SETTINGS, data, tmp_path, objective)
    assert run.steps == 16
    run.schedule.last_epoch = step
    batch = next(data.epoch(SETTINGS, torch.Generator().manual_seed(0)))
    plain = F.cross_entropy(network(batch.images), batch.labels)
    torch.testing.assert_close(run._loss(batch), (1 - weight) * plain + weight * 100)
    assert asked == [step]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_the_forward_pass_has_the_precision_that_was_asked_for(
    precision: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    seen = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    network[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    images = torch.randint(0, 256, (20, 3, 2, 2), dtype=torch.uint8)
    data = TrainingSet.clean(ImageSet(images, torch.arange(20) % 2, ("a", "b")))
    settings = TrainSettings(name="x", epochs=2, batch_size=5, crop_padding=0, precision=precision)
    TrainingRun(network, settings, data, tmp_path).one_epoch(torch.device("cpu"), lambda: None)
    assert seen == [dtype] * 4


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_what_another_learns(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (20, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    data = TrainingSet.clean(ImageSet(images, torch.arange(20) % 2, ("a", "b")))
    learnt = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
        settings = TrainSettings(
            name="x", epochs=2, batch_size=5, crop_padding=0, precision="float32", compiled=compiled
        )
        run = TrainingRun(network, settings, data, tmp_path)
        assert (run.forward is network) is not compiled
        run.one_epoch(torch.device("cpu"), lambda: None)
        learnt.append(network.state_dict())
    assert learnt[0].keys() == learnt[1].keys()
    for name, value in learnt[0].items():
        torch.testing.assert_close(learnt[1][name], value, rtol=1e-4, atol=1e-5)
