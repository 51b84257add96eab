"""What the classifier answers to the questions of the detectors."""

import numpy as np
import pytest
import torch

from app.assembly import build_firewall
from app.console.probing import ask, questions
from app.firewall import Firewall
from detectors.probes import DEFAULT_PRESET, PRESETS
from detectors.profile import log_odds
from tests.app.conftest import MakeSettings
from tests.app.tiny import pixels


@pytest.fixture
def firewall(make_settings: MakeSettings) -> Firewall:
    return build_firewall(make_settings(detectors=("profile", "psc", "spc", "nspc"), alpha=0.4))


def test_the_questions_that_have_a_picture(firewall: Firewall) -> None:
    names = [(each.detector, each.name) for each in questions(firewall.detectors)]
    probes = [probe.name for probe in PRESETS[DEFAULT_PRESET].probes]
    scales = ["x3", "x5", "x7", "x9", "x11"]
    assert names == [*[("profile", name) for name in probes], *[("spc", name) for name in scales]]


def test_the_answers_are_those_that_the_detectors_get(firewall: Firewall) -> None:
    """Before a calibration nothing is usual; after one, the profile's own mean and spread are."""
    image = (pixels(1, seed=3)[:, None] / np.float32(255)).astype(np.float32)
    benign = torch.from_numpy((pixels(50, seed=1)[:, None] / 255).astype(np.float32))
    before = ask(firewall, image[0])
    assert before.plain.usual is None

    profile = firewall.detectors[0]
    evidence = profile.measure(torch.from_numpy(image))[0].tolist()
    assert before.plain.log_odds == pytest.approx(evidence[0], abs=1e-4)
    assert [each.log_odds for each in before.by["profile"]] == pytest.approx(evidence[1:], abs=1e-4)
    scaled = firewall.classifier.logits(torch.from_numpy((image * 7).clip(0, 1)))
    answer = next(each for each in before.by["spc"] if each.question and each.question.name == "x7")
    assert answer.label == int(scaled.argmax())
    label = torch.tensor([before.plain.label])
    assert answer.log_odds == pytest.approx(float(log_odds(scaled, label)), abs=1e-4)

    firewall.enforce(firewall.prepare("a", firewall.calibrate(firewall.measure(benign), 0.4)))
    after = ask(firewall, image[0])
    answers = [after.plain, *after.by["profile"]]
    usual = [each.usual for each in answers]
    assert firewall.guard is not None
    fit = firewall.guard.watches[0].calibration.fit  # type: ignore[union-attr]
    assert [each[0] for each in usual if each] == fit["means"][after.plain.label]
    covariance = np.linalg.inv(np.array(fit["whitening"]).T @ np.array(fit["whitening"]))
    assert [each[1] for each in usual if each] == pytest.approx(np.sqrt(np.diag(covariance)).tolist())
    mean, deviation = answers[1].usual or (0, 1)
    assert answers[1].deviation == pytest.approx((answers[1].log_odds - mean) / deviation)
    assert all(each.usual is None for each in after.by["spc"])
