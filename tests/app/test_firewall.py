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


# --- ties -----------------------------------------------------------------------------------------


def test_randomised_ties_spend_the_budget_and_an_image_keeps_its_verdict(make_settings: MakeSettings) -> None:
    """Six levels of SPC: with conservative ties a level passes whole or not at all."""
    rates = {}
    for ties in ("conservative", "randomised"):
        firewall = build_firewall(make_settings(ties=ties, conditioning="marginal"))
        content = firewall.calibrate(sample_of(firewall, 400), 0.25)
        assert (content.secret is None) == (ties == "conservative")
        again = CalibrationContent.from_json(json.loads(json.dumps(content.to_json())))
        firewall.enforce(firewall.prepare("x", again))
        images = batch(400, seed=1)
        first = [each.verdict for each in firewall.inspect(images)[1]]
        assert [each.verdict for each in firewall.inspect(images, full=True)[1]] == first
        assert [firewall.inspect(images[[n]])[1][0].verdict for n in range(20)] == first[:20]
        rates[ties] = np.mean([verdict is Verdict.REJECTED for verdict in first])
        for each in firewall.inspect(images, full=True)[1]:
            (found,) = each.detections
            assert found.suspicious == (found.score > found.threshold)
            assert found.p_value is not None
            assert found.suspicious == (found.p_value <= 100 / 401)  # ⌊0.25 · 401⌋
    assert rates["conservative"] < 0.24 < rates["randomised"]
    assert rates["randomised"] == pytest.approx(0.25, abs=0.07)


def test_another_calibration_draws_other_lots(make_settings: MakeSettings) -> None:
    firewall = build_firewall(make_settings(ties="randomised", conditioning="marginal"))
    sample = sample_of(firewall, 400)
    first, second = firewall.calibrate(sample, 0.3), firewall.calibrate(sample, 0.3)
    assert first.secret != second.secret
    assert {**first.to_json(), "secret": None} == {**second.to_json(), "secret": None}


# --- samples that hardly are any ------------------------------------------------------------------

ALL = ("profile", "psc", "spc", "nspc")


def degenerate(firewall: Firewall, kind: str) -> BenignSample:
    count = 4 if kind == "one image per class" else 60
    sample = sample_of(firewall, 60)
    match kind:
        case "all alike":  # σ = 0 everywhere
            return sample.take(np.zeros(60, dtype=np.int64))
        case "one image per class":
            labels, first = np.unique(sample.predicted, return_index=True)
            assert len(labels) >= 2
            return sample.take(first[:count])
        case _:  # one class only
            most = np.bincount(sample.predicted).argmax()
            return sample.take(sample.predicted == most)


@pytest.mark.parametrize("ties", ["conservative", "randomised"])
@pytest.mark.parametrize("kind", ["all alike", "one image per class", "one class only"])
def test_degenerate_samples_calibrate_or_are_refused_with_a_sentence(
    make_settings: MakeSettings, kind: str, ties: str
) -> None:
    firewall = build_firewall(make_settings(detectors=ALL, psc_n=2, ties=ties))
    sample = degenerate(firewall, kind)
    for alpha in (0.9, 0.01):
        if len(sample) < 4 * (1 / alpha) - 1:
            with pytest.raises(CalibrationError, match="benign images are too few"):
                firewall.calibrate(sample, alpha)
            continue
        content = firewall.calibrate(sample, alpha)
        text = json.dumps(content.to_json(), allow_nan=False)
        firewall.enforce(firewall.prepare("x", CalibrationContent.from_json(json.loads(text))))
        for full in (False, True):
            for each in firewall.inspect(batch(10), full=full)[1]:
                assert all(np.isfinite(found.score) for found in each.detections)
                assert all(0 <= (found.p_value or 0) <= 1 for found in each.detections)


def test_a_network_that_answers_nan_cannot_be_calibrated_and_the_sentence_says_why(
    make_settings: MakeSettings,
) -> None:
    firewall = build_firewall(make_settings(detectors=("profile", "psc"), psc_n=2))
    for parameter in firewall.classifier.network.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(CalibrationError, match="not numbers"):
        firewall.calibrate(sample_of(firewall), 0.4)


# --- triggered images among the calibration images ------------------------------------------------


def planted(firewall: Firewall, count: int = 12) -> BenignSample:
    """400 images whose profiles are made up; the last `count` are predicted as label 1 and lie apart."""
    generator = np.random.default_rng(0)
    sample = sample_of(firewall, 400)
    predicted = generator.integers(0, 4, 400)
    size = sample.evidence["profile"].shape[1]
    profiles = generator.normal(0, 1, (4, size))[predicted] / 3 + generator.normal(0, 1, (400, size))
    predicted[-count:] = 1
    profiles[-count:] = 12 * (-1) ** np.arange(size) + generator.normal(0, 0.3, (count, size))
    return BenignSample(predicted, None, {**sample.evidence, "profile": profiles})


def test_suspects_are_left_out_and_named(make_settings: MakeSettings) -> None:
    settings = {"detectors": ("profile", "spc")}
    removing = build_firewall(make_settings(**settings))
    reporting = build_firewall(make_settings(**settings, suspects="report"))
    sample = planted(removing)
    without = removing.calibrate(sample, 0.1)
    everything = reporting.calibrate(sample, 0.1)
    for content, left_out in ((without, True), (everything, False)):
        screening = dict(content.screening or {})
        assert (screening["strength"], screening["label"]) == ("strong", 1)
        assert (screening["suspects"], screening["left_out"]) == (list(range(388, 400)), left_out)
        assert content.images == (388 if left_out else 400)
    assert without.parts[0].thresholds(4)[1] < everything.parts[0].thresholds(4)[1] / 2


def test_leaving_out_too_many_is_refused_with_the_reason(make_settings: MakeSettings) -> None:
    firewall = build_firewall(make_settings(detectors=("profile",)))
    with pytest.raises(CalibrationError, match=r"too few.*very likely carry a trigger"):
        firewall.calibrate(planted(firewall), 1 / 399)


def test_thresholds_withstand_the_share_that_is_stated(make_settings: MakeSettings) -> None:
    firewall = build_firewall(
        make_settings(detectors=("profile",), suspects="report", conditioning="marginal")
    )
    sample = planted(firewall)
    plain = firewall.calibrate(sample, 0.02).parts[0]
    robust = firewall.calibrate(sample, 0.02, contamination=0.03).parts[0]
    assert robust.contamination == 0.03
    assert robust.thresholds(4)[1] < 0.6 * plain.thresholds(4)[1]
    assert len(robust.pooled) == 388
