"""The probe's figures on a network that learns a backdoor in moments."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from detectors.base import CalibrationError, Detector, InputError
from detectors.power_probe import auroc, plan_probes, probe_power
from detectors.power_report import PowerReport, Probed
from detectors.profile import Profile
from detectors.scale_up import ScaleUp
from detectors.strip import Strip
from tests.detectors.bars import bars, network, trained_network
from tests.detectors.classifiers import Network


def guards(module: nn.Module) -> list[Detector]:
    classifier = Network(module, 4)
    return [Profile(classifier), ScaleUp(classifier)]


class Ticks:
    """A clock that advances by `step` whenever it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture(scope="module")
def report() -> PowerReport:
    images, labels = bars(200, seed=5)
    return probe_power(
        trained_network(), images, labels, guards, alpha=0.05, kinds=["patch", "blend"], targets=[1, 3]
    )


def test_every_kind_and_target_is_implanted_and_judged(report: PowerReport) -> None:
    assert [(p.trigger, p.target) for p in report.probes] == [
        ("patch", 1), ("blend", 3), ("patch", 3), ("blend", 1),
    ]  # fmt: skip
    assert report.left_out == ()
    assert (report.implanted_on, report.calibrated_on) == (161, 39)  # 39 support 5 % split in two
    for probe in report.judged:
        assert probe.success >= 0.9
        assert probe.agreement >= 0.8
        assert set(probe.detectors) == {"profile", "spc"}
        assert all(0 <= power.tpr <= 1 and 0 <= power.auroc <= 1 for power in probe.detectors.values())
    assert len(report.judged) >= 3
    assert report.caught == np.mean([p.caught for p in report.judged])


def test_the_report_is_json_without_nan_and_says_it_in_words(report: PowerReport) -> None:
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["probes"][0]["detectors"]["profile"]["tpr"] == report.probes[0].detectors["profile"].tpr
    assert f"{report.caught:.0%} are caught at a false-positive budget of 5.00%" in content["summary"]


def test_without_labels_the_predictions_do() -> None:
    images, _ = bars(150, seed=5)
    found = probe_power(trained_network(), images, None, guards, alpha=0.05, kinds=["patch"], targets=[0])
    assert len(found.judged) == 1


def test_the_time_is_kept() -> None:
    images, labels = bars(150, seed=5)
    clock = Ticks(1.0)  # looked at once a step of fine-tuning, of which a probe takes 60 and more
    found = probe_power(trained_network(), images, labels, guards, alpha=0.05, seconds=130, clock=clock)
    assert clock.now <= 130 + 5  # a last step, and the looks that notice
    assert found.seconds <= 130 + 5
    assert 1 <= len(found.probes) <= 2
    assert len(found.probes) + len(found.left_out) == 9


def test_too_little_time_is_said() -> None:
    images, labels = bars(150, seed=5)
    spent = probe_power(trained_network(), images, labels, guards, alpha=0.05, seconds=3, clock=Ticks(1.0))
    assert spent.caught is None
    assert "no backdoor could be implanted and judged" in spent.summary()


def test_too_few_images_are_refused_with_the_number_that_would_do() -> None:
    images, labels = bars(60)
    with pytest.raises(CalibrationError, match="at least 449"):
        probe_power(trained_network(), images, labels, guards, alpha=0.005)


def test_a_detector_that_compares_images_is_given_some_that_nothing_else_uses() -> None:
    def comparing(module: nn.Module) -> list[Detector]:
        return [Strip(Network(module, 4), 5)]

    images, labels = bars(150, seed=5)
    found = probe_power(
        trained_network(), images, labels, comparing, alpha=0.05, kinds=["patch"], targets=[0]
    )
    assert found.implanted_on + found.calibrated_on == 145
    assert set(found.judged[0].detectors) == {"strip"}
    with pytest.raises(CalibrationError, match="5 are kept to compare"):
        probe_power(trained_network(), images[:20], labels[:20], comparing, alpha=0.05)


@pytest.mark.parametrize("wrong", [{"kinds": ["x"]}, {"targets": [4]}, {"targets": []}])
def test_unknown_kinds_and_labels_are_refused(wrong: dict[str, list[object]]) -> None:
    images, labels = bars(150)
    with pytest.raises(InputError):
        probe_power(trained_network(), images, labels, guards, alpha=0.05, **wrong)  # type: ignore[arg-type]


def test_a_network_that_gives_no_numbers_holds_no_backdoor() -> None:
    broken = network()
    nn.init.constant_(broken[0].weight, torch.nan)
    images, labels = bars(150)
    found = probe_power(broken.eval(), images, labels, guards, alpha=0.05, kinds=["patch"], targets=[1])
    assert [probe.held for probe in found.probes] == [False]
    assert json.dumps(found.to_json(), allow_nan=False)


def test_every_beginning_of_the_plan_is_balanced() -> None:
    plan = plan_probes(["a", "b", "c"], [7, 8, 9])
    assert len(set(plan)) == 9
    for start in (0, 3, 6):
        assert {kind for kind, _ in plan[start : start + 3]} == {"a", "b", "c"}
        assert {target for _, target in plan[start : start + 3]} == {7, 8, 9}
    assert plan_probes(["a", "b"], [5]) == [("a", 5), ("b", 5)]


def test_auroc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    benign, triggered = rng.integers(0, 6, 40) / 5, rng.integers(2, 8, 30) / 5
    pairs = [(t > b) + 0.5 * (t == b) for t in triggered for b in benign]
    assert auroc(benign, triggered) == pytest.approx(np.mean(pairs))
    assert auroc(benign, np.array([math.nan])) == 1.0


def test_the_summary_names_the_weakest() -> None:
    made = [
        Probed("patch", 1, 9, 1.0, 1.0, True, 0.5, {}),
        Probed("warp", 2, 9, 0.2, 1.0, False, None, {}),
        Probed("blend", 0, 9, 1.0, 1.0, True, 1.0, {}),
    ]
    found = PowerReport(0.01, 100, 300, 100, 12.0, tuple(made), ())
    assert found.caught == 0.75
    assert "75% are caught" in found.summary()
    assert "from 50% (patch, target 1) to 100% (blend, target 0)" in found.summary()
    assert "Take it as a hint" in found.summary()
    assert found.to_json()["left_out"] == []
