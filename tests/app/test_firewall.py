"""Images → verdicts, without HTTP: what is enforced, and that nothing unlooked-at passes."""

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from app.assembly import build_firewall
from app.firewall import CalibrationContent, Firewall, NotCalibrated
from app.policy import Mode, Verdict
from app.settings import DetectorName
from detectors.base import BasePass, CalibrationError, Scores
from detectors.calibration import BenignSample
from tests.app.conftest import MakeSettings
from tests.app.tiny import pixels


def batch(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(pixels(count, seed) / np.float32(255))[:, None].float()


def sample_of(firewall: Firewall, count: int = 60, labels: Any = None) -> BenignSample:
    kept = firewall.keep(batch(16, seed=3))
    parts = [firewall.measure(part, kept) for part in batch(count, seed=1).split(16)]
    return BenignSample.join(parts, labels)


@pytest.fixture
def firewall(make_settings: MakeSettings) -> Firewall:
    return build_firewall(make_settings())


def test_nothing_passes_before_there_is_something_to_judge_by(firewall: Firewall) -> None:
    with pytest.raises(NotCalibrated):
        firewall.inspect(batch(1))
    firewall.mode = Mode.MONITOR
    id, (inspection,) = firewall.inspect(batch(1))
    assert (id, inspection.verdict, inspection.detections) == (None, Verdict.FLAGGED, ())


def test_a_calibration_keeps_its_budget_on_what_it_saw(firewall: Firewall) -> None:
    content = firewall.calibrate(sample_of(firewall, 200), 0.4)
    firewall.enforce(firewall.prepare("one", content))
    id, inspections = firewall.inspect(batch(200, seed=1))
    assert id == "one"
    rejected = [each for each in inspections if each.verdict is Verdict.REJECTED]
    assert 0 < len(rejected) <= 0.4 * 201
    for each in inspections:
        (found,) = each.detections
        assert found.suspicious == (found.score > found.threshold)
        assert found.p_value is not None
        if found.exact:  # the threshold and the p-value say the same
            assert found.suspicious == (found.p_value <= 0.4)


def test_content_survives_json(firewall: Firewall) -> None:
    labels = np.zeros(60, dtype=np.int64)
    content = firewall.calibrate(sample_of(firewall, labels=labels), 0.4)
    again = CalibrationContent.from_json(json.loads(json.dumps(content.to_json())))
    assert again.to_json() == content.to_json()
    assert again.labelled
    for each in (content, again):
        firewall.enforce(firewall.prepare("x", each))
        assert [i.verdict for i in firewall.inspect(batch(30))[1]] == [
            i.verdict for i in firewall.inspect(batch(30))[1]
        ]


def test_what_was_made_for_something_else_does_not_fit(
    firewall: Firewall, make_settings: MakeSettings
) -> None:
    content = firewall.calibrate(sample_of(firewall), 0.4)
    assert firewall.fits(content) is None
    other = replace(content, classifier_digest="0" * 64)
    assert "another classifier" in str(firewall.fits(other))
    with pytest.raises(CalibrationError, match="cannot be enforced"):
        firewall.prepare("x", other)
    assert "other detector settings" in str(build_firewall(make_settings(spc_scales=(2,))).fits(content))


def test_a_score_that_is_not_a_number_is_rejected(firewall: Firewall) -> None:
    content = firewall.calibrate(sample_of(firewall), 0.4)
    guard = firewall.prepare("x", content)

    class Broken:
        def base(self, images: Tensor) -> BasePass | None:
            return None

        def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
            count = len(base.labels)
            return Scores(torch.full((count,), torch.nan).double(), torch.ones(count, dtype=torch.bool))

    firewall.enforce(replace(guard, watches=(replace(guard.watches[0], scorer=Broken()),)))
    _, inspections = firewall.inspect(batch(4))
    assert {each.verdict for each in inspections} == {Verdict.REJECTED}


def test_stages_are_timed(firewall: Firewall) -> None:
    seen: list[tuple[str, float]] = []
    firewall.on_stage = lambda stage, seconds: seen.append((stage, seconds))
    firewall.mode = Mode.MONITOR
    firewall.inspect(batch(2))
    assert [stage for stage, _ in seen] == ["predict", "detect"]
    assert all(0 <= seconds < 60 for _, seconds in seen)


@pytest.mark.parametrize("name", get_args(DetectorName))
def test_a_network_that_answers_with_nothing_but_nan_clears_nobody(
    make_settings: MakeSettings, name: str
) -> None:
    """argmax of NaN is label 0, and agrees with itself under every scale."""
    firewall = build_firewall(make_settings(detectors=(name,), psc_n=2))
    content = firewall.calibrate(sample_of(firewall), 0.2)
    firewall.enforce(firewall.prepare("c", content))
    assert any(each.verdict is Verdict.ACCEPTED for each in firewall.inspect(batch(40))[1])
    for parameter in firewall.classifier.network.parameters():
        parameter.fill_(float("nan"))
    for full in (False, True):
        assert {each.verdict for each in firewall.inspect(batch(40), full=full)[1]} == {Verdict.REJECTED}
